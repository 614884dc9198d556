# %% [markdown]
"""# Audit your own model

Two networks learn scikit-learn's handwritten digits: the reference by backpropagation, the other one by feedback
alignment, whose backward pass sends the error through random weights. Under attack it looks robust. Is it?"""

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import creditflow as cf


def trained(rule):
    """Returns a network that is trained on the first 1,500 images."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 10))
    model = cf.apply_rule(network, rule, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters())
    for part in torch.randint(1500, (1000, 64)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
    return model.eval()


def gradient(model, image, label):
    """Returns the gradient of the loss at an image, (H, W)."""
    image = image.clone().requires_grad_()
    return torch.autograd.grad(nn.functional.cross_entropy(model(image), label), image)[0][0, 0]


images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
images = images.float().view(-1, 1, 8, 8) / 16  # in [0, 1]
models = {"reference": trained("bp"), "mine": trained("fa")}  # put your own models here
images, labels = images[-100:], labels[-100:]
print(cf.check_gradient(models["mine"], images, labels))

# %% [markdown]
# Its backward pass is not the derivative of what the network computes. Inside `exact_gradients`, it is.

# %%
pictures = {"image": images[0, 0], "its own gradient": gradient(models["mine"], images[:1], labels[:1])}
with cf.exact_gradients(models["mine"]):
    pictures["the exact gradient"] = gradient(models["mine"], images[:1], labels[:1])
for place, (title, picture) in enumerate(pictures.items(), start=1):
    plt.subplot(1, 3, place, title=title).imshow(picture, cmap="gray")
plt.savefig("gradients.png")

# %% [markdown]
# What is left of the robustness if the attacker knows better?

# %%
result = cf.audit(models, images, labels, epsilons=[0.05, 0.1], progress=False)
print(result)
result.save("audit")  # a page, the records, the adversarial images
result.figure()
