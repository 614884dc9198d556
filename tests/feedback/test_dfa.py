"""Direct feedback alignment against its closed form, in double precision."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from creditflow import apply_rule, feedback_state
from creditflow.core.errors import UserError
from creditflow.feedback.apply import feedback_layers
from helpers import Awkward, small_model, subset


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def b_of(view: nn.Module) -> dict[str, Tensor]:
    return {name: layer.feedback_weight() for name, layer in feedback_layers(view)}


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_perceptron_gets_the_updates_worked_out_by_hand(training: bool) -> None:
    net, x, labels = mlp(), torch.randn(7, 6).double().requires_grad_(), torch.arange(7) % 3
    view = apply_rule(net, "dfa", generator=gen()).train(training)
    loss = F.cross_entropy(view(x), labels)
    dx, *updates = torch.autograd.grad(loss, [x, *net.parameters()])

    b1, b2, b3 = b_of(view).values()
    assert [list(b.shape) for b in (b1, b2, b3)] == [[3, 6], [3, 5], [3, 4]]
    with torch.no_grad():
        h1 = torch.tanh(net[0](x))
        h2 = torch.tanh(net[2](h1))
        e = (net[4](h2).softmax(1) - F.one_hot(labels, 3)) / 7  # dL/dlogits
        delta2 = (e @ b3) * (1 - h2**2)
        delta1 = (e @ b2) * (1 - h1**2)
        expected = [delta1.T @ x, delta1.sum(0), delta2.T @ h1, delta2.sum(0), e.T @ h2, e.sum(0)]
    for mine, theirs in zip(updates, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(dx, e @ b1)


def by_definition(error: Tensor, b: Tensor, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The transposed convolution of the error at every place of the output map, one product at a time."""
    places = conv(x).shape[2:]
    (up, left), stride, dilation = conv.padding, conv.stride, conv.dilation
    padded = torch.zeros(*x.shape[:2], x.shape[2] + 2 * up, x.shape[3] + 2 * left).double()
    for i in range(places[0]):
        for j in range(places[1]):
            for a in range(b.shape[2]):
                for c in range(b.shape[3]):
                    padded[:, :, i * stride[0] + a * dilation[0], j * stride[1] + c * dilation[1]] += (
                        error @ b[:, :, a, c]
                    )
    return padded[:, :, up : up + x.shape[2], left : left + x.shape[3]]


GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (2, 3), "padding": (0, 2), "dilation": (2, 1)},
    {"groups": 2, "padding": 1, "bias": False},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["plain", "strided", "dilated", "grouped"])
def test_a_convolution_sends_the_error_through_the_transposed_convolution_with_b(geometry: dict[str, object]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (3, 2), **geometry).double()  # type: ignore[arg-type]
    net = nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)).double()
    x = torch.randn(2, 4, 8, 9).double().requires_grad_()
    net(x)
    view = apply_rule(net, "dfa", generator=gen())
    e = torch.randn(2, 3).double()
    dx, dw, *_ = torch.autograd.grad(view(x), [x, *conv.parameters()], e)

    b_conv, b_head = b_of(view).values()
    assert list(b_conv.shape) == [3, 4, 3, 2]  # all input channels, whatever the groups
    torch.testing.assert_close(dx, by_definition(e, b_conv, conv, x.detach()))
    # and, as a second witness, PyTorch's own transposed convolution of the broadcast map
    a = conv(x)
    reach = [
        (a.shape[k] - 1) * conv.stride[k - 2] - 2 * conv.padding[k - 2] + conv.dilation[k - 2] * (b_conv.shape[k] - 1)
        for k in (2, 3)
    ]
    rest = [x.shape[2] - reach[0] - 1, x.shape[3] - reach[1] - 1]
    everywhere = e[:, :, None, None].expand(-1, -1, *a.shape[2:])
    torch.testing.assert_close(
        dx, F.conv_transpose2d(everywhere, b_conv, None, conv.stride, conv.padding, rest, 1, conv.dilation)
    )
    delta = (e @ b_head).view_as(a) * (1 - torch.tanh(a) ** 2)
    torch.testing.assert_close(dw, torch.autograd.grad(a, conv.weight, delta)[0])


def test_every_position_of_a_longer_input_gets_the_error() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.embed(x)).mean((1, 2)))

    torch.manual_seed(0)
    view = apply_rule(Tokens().double(), "dfa", generator=gen())
    x, e = torch.randn(2, 6, 7, 4).double().requires_grad_(), torch.randn(2, 3).double()
    (dx,) = torch.autograd.grad(view(x), x, e)
    torch.testing.assert_close(dx, (e @ view.embed.feedback_weight())[:, None, None].expand_as(x))


def test_padding_keeps_its_exact_gradient_around_the_rule() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(48, 2)).double()
    view = apply_rule(net, "dfa", generator=gen())
    x, e = torch.randn(2, 2, 4, 4).double().requires_grad_(), torch.randn(2, 2).double()
    (dx,) = torch.autograd.grad(view(x), x, e)
    inner = F.conv_transpose2d(e[:, :, None, None].expand(-1, -1, 4, 4), view[0].feedback_weight())
    (expected,) = torch.autograd.grad(F.pad(x, (1, 1, 1, 1), mode="circular"), x, inner)
    torch.testing.assert_close(dx, expected)


def test_the_error_is_that_of_the_backward_pass_that_runs() -> None:
    """Other losses, batch sizes and modes, several passes before a backward, a backward again: never a stale error."""
    net = mlp()
    view = apply_rule(net, "dfa", generator=gen())
    b1 = b_of(view)["0"]
    F.cross_entropy(view(torch.randn(8, 6).double()), torch.zeros(8, dtype=torch.int64)).backward()
    view.eval()
    one, other = torch.randn(3, 6).double().requires_grad_(), torch.randn(5, 6).double().requires_grad_()
    logits, others = view(one), view(other)
    view(torch.randn(2, 6).double())
    e, f = torch.randn(3, 3).double(), torch.randn(5, 3).double()
    dx, dy = torch.autograd.grad([logits, others], [one, other], [e, f], retain_graph=True)
    torch.testing.assert_close(dx, e @ b1)
    torch.testing.assert_close(dy, f @ b1)
    (dx,) = torch.autograd.grad(logits, one, -2 * e)
    torch.testing.assert_close(dx, -2 * e @ b1)


def test_no_error_no_update_and_no_gradient_mode() -> None:
    net = Awkward().double()
    view = apply_rule(net, "dfa", generator=gen())
    x = torch.randn(2, 4, 11, 11).double()
    with torch.no_grad():
        torch.testing.assert_close(view.eval()(x), net.eval()(x))
    output = view.train()(x)
    for update in torch.autograd.grad(output, list(net.parameters()), torch.zeros_like(output)):
        assert (update == 0).all()


def test_copies_of_a_view_have_errors_of_their_own() -> None:
    view = apply_rule(mlp(), "dfa", generator=gen())
    twin = copy.deepcopy(view)
    x, e = torch.randn(2, 6).double().requires_grad_(), torch.randn(2, 3).double()
    output = view(x)
    (theirs,) = torch.autograd.grad(twin(x), x, -e)
    (ours,) = torch.autograd.grad(output, x, e)
    torch.testing.assert_close(ours, -theirs)


def test_the_output_may_be_written_into() -> None:
    view = apply_rule(mlp(), "dfa", generator=gen())
    x, e = torch.randn(2, 6).double().requires_grad_(), torch.randn(2, 3).double()
    (dx,) = torch.autograd.grad(view(x).mul_(2), x, e)
    torch.testing.assert_close(dx, 2 * e @ view[0].feedback_weight())


def test_the_state_round_trips() -> None:
    model = Awkward()
    view = apply_rule(model, "dfa", generator=gen())
    state = feedback_state(view)
    assert state["layers.3.feedback_weight"].shape == (3, 6, 3, 2)
    again = apply_rule(model, "dfa", state=state)
    x = torch.randn(2, 4, 11, 11)
    gradients = [torch.autograd.grad(one(x).sum(), list(model.parameters())) for one in (view, again)]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_autocast_keeps_types_and_nearly_the_values() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5))
    view, x = apply_rule(net, "dfa", generator=gen()), torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = view(x)
    e = torch.randn(2, 5).bfloat16()
    passes = [torch.autograd.grad(output, [x, *net.parameters()], e.to(output.dtype)) for output in (low, view(x))]
    for ours, exact in zip(*passes, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - exact).norm() < 0.02 * exact.norm()


def test_it_learns_easy_images() -> None:
    model, data = small_model(), subset()
    view = apply_rule(model, "dfa", generator=gen())
    images, labels = data.images.float() / 255, data.labels
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(view(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert (model(images).argmax(1) == labels).float().mean() > 0.95


class Branches(nn.Module):
    """Returns what a direct rule cannot use, by wish."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.head, self.body = nn.Linear(4, 3), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> object:
        hidden = self.body(x)
        logits = self.head(hidden)
        return {"swapped": logits, "pair": (logits, hidden), "map": logits[:, :, None]}[self.kind]


@pytest.mark.parametrize(
    ("kind", "found"), [("swapped", r"returns \[2, 3\]"), ("pair", "returns tuple"), ("map", r"returns \[2, 3, 1\]")]
)
def test_outputs_that_the_error_cannot_be_read_from_are_refused(kind: str, found: str) -> None:
    view = apply_rule(Branches(kind), "dfa", generator=gen())  # whose last layer is not the output's
    with pytest.raises(UserError, match=rf"outputs of shape \[N, 4\], the model {found}; pass outputs=K"):
        view(torch.randn(2, 5))


def test_the_number_of_outputs_can_be_told() -> None:
    view = apply_rule(Branches("swapped"), "dfa", generator=gen(), outputs=3)
    assert view.body.feedback_weight().shape == (3, 5)
    view(torch.randn(2, 5)).sum().backward()
    with pytest.raises(UserError, match="pass outputs=K"):
        apply_rule(nn.Sequential(nn.ReLU()), "dfa", generator=gen())


def test_a_loss_that_is_not_of_the_output_is_refused() -> None:
    net = mlp()
    view = apply_rule(net, "dfa", generator=gen())
    x = torch.randn(2, 6).double().requires_grad_()
    with pytest.raises(UserError, match="must be a function of what the whole view returns"):
        view[:3](x).sum().backward()

    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(x.flatten(0, 1)).view(2, 3, 4).mean(1))

    with pytest.raises(UserError, match="sends the error of 2 images to a layer whose input has 6"):
        apply_rule(Folding(), "dfa", generator=gen())(torch.randn(2, 3, 6, requires_grad=True)).sum().backward()
