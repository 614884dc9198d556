"""Whether a population fits into memory."""

import math
import re
from pathlib import Path

import torch

from creditflow.core.errors import UserError
from creditflow.populations.measuring import MEASURED
from creditflow.populations.network import Network
from creditflow.populations.settings import PopulationSettings


def check_memory(
    network: Network, n_feedback: int, n_members: int, settings: PopulationSettings, device: torch.device
) -> None:
    """Raises UserError if the population needs more memory than is available; the error says how many members fit.

    Args:
        n_feedback: count of numbers in the feedback state of one network.
    """
    each, free = member_bytes(network, n_feedback, settings), available_bytes(device)
    if n_members * each > free:
        raise UserError(
            f"{n_members} members of {each / 2**20:.0f} MiB each need {n_members * each / 2**30:.1f} GiB,"
            f" {free / 2**30:.1f} GiB are available: {free // each} fit;"
            " split the learning rates over several populations"
        )


def member_bytes(network: Network, n_feedback: int, settings: PopulationSettings) -> int:
    """Returns roughly the bytes that one member takes.

    They hold parameters, directions, the optimiser's state, the best epoch's parameters, a checkpoint, and activations.
    """
    widths = network.widths
    parameters = n_feedback + sum(math.prod(shape) + shape[0] for shape in network.weight_shapes().values())
    optimizer = settings.optimizer
    copies = 5 + (2 if optimizer.kind == "adam" else bool(optimizer.momentum))
    activations = 8 * settings.batch_size * sum(widths)
    saturated = 2 * min(settings.stability_images, MEASURED)  # twice, as float64 takes two float32
    measured = (
        3 * max(settings.adversary_images, settings.curve_images, saturated) * sum(widths)
        if settings.adversary
        else MEASURED * sum(widths[1:])
    )
    return (8 if settings.precision == "float64" else 4) * (copies * parameters + activations + measured)


def available_bytes(device: torch.device) -> int:
    """Returns the free memory of a device, in bytes. For the CPU it is at most what the control group allows."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    free = int(available.group(1)) * 1024 if available else 2**62
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text(encoding="utf-8").strip().isdigit():
        free = min(free, int(limit.read_text(encoding="utf-8")) - int(used.read_text(encoding="utf-8")))
    return max(free, 0)
