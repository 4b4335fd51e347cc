"""Exact search: the k rows of a matrix with the largest dot products, for many queries at once.

On a CPU `topk` takes longer than the products that it looks at, so it is shown few: a sample of the rows tells about where the k-th
best score lies, one comparison finds the scores that reach so far, and the k best are picked from those. Where the sample misleads,
too few or too many reach it, and `topk` is shown all.
"""

import math

import torch
from torch import Tensor

# Scores that are held at a time: what a CPU likes, and a GPU; and what stays near a CPU's caches.
_SCORES = {"cpu": 2**24, "cuda": 2**28}
_NEAR = 2**22

# Queries that go through the rows together on a CPU: fewer would not keep its arithmetic busy.
_QUERIES = 256

# A sample is worth its time from so many rows on, and from so many times k. Where k is small beside the rows, the best of every 8
# scores is compared in place of them all.
_ROWS, _TIMES = 2**13, 6
_SMALL, _GROUP = 1 / 128, 8


@torch.no_grad()
def nearest(queries: Tensor, rows: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k rows with the largest dot products with each query; brute force, nothing approximated but the type of the rows.

    Args:
        queries: (Q, D).
        rows: (N, D), in float32 or bfloat16: the products are taken in that type, as fast as the hardware multiplies it.
        k: at most N, of which some come back as -inf where `exclude` leaves fewer.
        exclude: (Q,) int64, a row that is not to be found, for each query; -1 for none.

    Returns:
        Scores float32 and places int64, (Q, k) each, in no order.

    >>> import torch
    >>> scores, places = nearest(torch.eye(3), torch.eye(3), k=1, exclude=torch.tensor([-1, -1, -1]))
    >>> places.flatten()
    tensor([0, 1, 2])
    """
    queries = queries.to(rows.dtype)
    exclude = torch.full((len(queries),), -1, device=rows.device) if exclude is None else exclude
    few = rows.device.type == "cpu" and len(queries) and len(rows) >= max(_ROWS, _TIMES * k)
    step = _QUERIES if few else max(1, len(queries))
    found = []
    with torch.autocast(rows.device.type, enabled=False):
        for some, own in zip(queries.split(step), exclude.split(step), strict=True):
            found.append((few and _from_few(some, rows, k, own)) or _from_all(some, rows, k, own))
    scores, places = (torch.cat(parts) for parts in zip(*found, strict=True))
    return scores.float(), places


def _from_all(queries: Tensor, rows: Tensor, k: int, exclude: Tensor) -> tuple[Tensor, Tensor]:
    step = max(1, _SCORES.get(rows.device.type, _SCORES["cpu"]) // max(1, len(rows)))
    held = queries.new_empty(min(step, len(queries)), _aligned(len(rows)))
    found = []
    for some, own in zip(queries.split(step), exclude.split(step), strict=True):
        scores = _multiply(some, rows, 0, own, held[: len(some)])
        found.append(scores[:, : len(rows)].topk(k, dim=1, sorted=False))
    scores, places = (torch.cat(parts) for parts in zip(*found, strict=True))
    return scores, places


def _from_few(queries: Tensor, rows: Tensor, k: int, exclude: Tensor) -> tuple[Tensor, Tensor] | None:
    """The same from the scores that reach a guess; None where the guess is poor."""
    floor, most = _guess(queries, rows, k)
    group = _GROUP if k < _SMALL * len(rows) else 1
    blocks = -(-len(queries) * len(rows) // (_SCORES["cpu"] if group == 1 else _NEAR))
    width = _aligned(-(-len(rows) // blocks))
    held = queries.new_empty(len(queries), width)
    span = width * blocks  # a score's key is query * span + place
    keys, values, left = [], [], most * len(queries)
    for start in range(0, len(rows), width):
        _multiply(queries, rows[start : start + width], start, exclude, held)
        at = _reaching(held, floor, group)
        keys.append(at if blocks == 1 else at + at // width * (span - width) + start)
        values.append(held.view(-1).index_select(0, at))
        left -= len(at)
        if left < 0:
            return None
    key, value = torch.cat(keys), torch.cat(values)
    if blocks > 1:
        key, order = key.sort()
        value = value.index_select(0, order)
    query = torch.arange(0, span * len(queries), span).unsqueeze(1)  # (Q, 1)
    begin, end = torch.searchsorted(key, query), torch.searchsorted(key, query + span)
    length = end - begin
    if not k <= int(length.min()) <= int(length.max()) <= most:
        return None
    there = torch.arange(int(length.max())) < length
    table = value.new_full(there.shape, -torch.inf).masked_scatter_(there, value)
    scores, at = table.topk(k, dim=1, sorted=False)
    return scores, key.take(begin + at) - query


def _guess(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, int]:
    """A score that at least k rows should reach, (Q, 1), and how many would be too many."""
    size = max(min(2**11, len(rows) // 16), int(4 * (k * len(rows)) ** (1 / 3)))
    sample = rows[torch.randint(len(rows), (size,), generator=torch.Generator().manual_seed(0))]
    share = k * size / len(rows)  # of the k best, how many the sample should have
    rank = math.ceil(share + 6 * math.sqrt(share) + 2)  # by six standard deviations: it serves many queries
    best = (queries @ sample.T).topk(rank, dim=1, sorted=False).values
    return best.amin(1, keepdim=True), 4 * rank * len(rows) // size


def _reaching(scores: Tensor, floor: Tensor, group: int) -> Tensor:
    """Where the flattened scores reach the floor."""
    if group == 1:
        return _reach(scores, floor).view(-1).nonzero().flatten()
    width = scores.shape[1]
    part = width // group  # a group is every part-th score of a query
    best = _reach(scores.view(-1, group, part).amax(1), floor).view(-1).nonzero()  # (n, 1)
    query = best // part
    members = best + query * (width - part) + torch.arange(0, width, part)  # (n, group)
    reach = _reach(scores.view(-1).index_select(0, members.view(-1)).view_as(members), floor.take(query))
    return members.view(-1).index_select(0, reach.view(-1).nonzero().flatten())


def _reach(scores: Tensor, floor: Tensor) -> Tensor:
    if scores.dtype == torch.bfloat16:  # in its own type it is compared three times as fast
        return torch.ge(scores, floor, out=torch.empty_like(scores)).bool()
    return scores >= floor


def _multiply(queries: Tensor, rows: Tensor, start: int, exclude: Tensor, out: Tensor) -> Tensor:
    """Scores of the rows from the place `start` on; -inf for the excluded, and where `out` is wider than there are rows."""
    torch.mm(queries, rows.T, out=out[:, : len(rows)])
    out[:, len(rows) :] = -torch.inf
    own = ((exclude >= start) & (exclude < start + len(rows))).nonzero().flatten()
    out[own, exclude[own] - start] = -torch.inf
    return out


def _aligned(width: int) -> int:
    """Lines of scores that begin at multiples of 256 bytes are written up to 1.5 times as fast."""
    return -(-width // 128) * 128
