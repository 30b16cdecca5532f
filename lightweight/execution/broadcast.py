"""Bytes that one process gives to all others that compute a stage."""

import torch
import torch.distributed as dist

from lightweight.execution.ranks import rank, world_size


def broadcast(content: bytes | None) -> bytes | None:
    """Give the bytes that rank 0 has, or None, to all processes."""
    if world_size() == 1:
        return content
    length = torch.tensor([-1 if content is None else len(content)])
    dist.broadcast(length, 0)
    if length.item() < 0:
        return None
    data = torch.empty(int(length.item()), dtype=torch.uint8)
    if rank() == 0:
        data = torch.frombuffer(bytearray(content or b""), dtype=torch.uint8) if content else data
    dist.broadcast(data, 0)
    return data.numpy().tobytes()
