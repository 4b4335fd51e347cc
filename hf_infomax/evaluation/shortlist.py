"""The nearest by cosine, exactly, with most of the products in half the bits."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_infomax.models.search import nearest

#: A bound on how far a product of unit vectors in bfloat16 is from the true one: 2^-9 for the rounding of each vector, by Cauchy
#: and Schwarz, and 2^-9 for that of the product.
ERROR = 3 * 2**-9
#: Candidates for k neighbours: TIMES k + MORE.
TIMES, MORE = 2, 24
#: Candidates are looked at again for so many queries at a time: their rows, copied, are to stay near a CPU's caches.
_QUERIES = 64


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))


def nearest_by_cosine(queries: Tensor, bank: Tensor, k: int, half: bool | None = None) -> tuple[Tensor, Tensor]:
    """The k entries of the bank with the largest cosine similarity to each query, as `hf_infomax.models.search.nearest` finds them.

    A shortlist is found in bfloat16 and looked at again in float32. What is not on it has a product of at most the least on it,
    plus `ERROR`; where the k-th best of the list is beyond that, the list had all of the k nearest. Where it is not, as in a
    crowd of near duplicates, the query is searched for in float32.

    Args:
        queries: (Q, F) float32.
        bank: (N, F) float32.
        k: at most N.
        half: whether to make a shortlist; None: where the hardware multiplies bfloat16 and the bank is much larger than one.

    Returns:
        Similarities and indices, (Q, k) each, in no order.

    >>> nearest_by_cosine(torch.tensor([[3.0, 1.0]]), torch.eye(2), k=1)[1]
    tensor([[0]])
    """
    queries, bank = F.normalize(queries), F.normalize(bank)
    count = TIMES * k + MORE
    if half is None:
        half = multiplies_bfloat16(queries.device) and len(bank) > 16 * count
    if not half or count >= len(bank):
        return nearest(queries, bank, k)
    rough, listed = nearest(queries, bank.bfloat16(), count)  # (Q, count)
    chunks = zip(queries.split(_QUERIES), listed.split(_QUERIES), strict=True)
    exact = torch.cat([torch.bmm(bank[places], some.unsqueeze(2)).squeeze(2) for some, places in chunks])  # (Q, count)
    similarity, at = exact.topk(k, dim=1, sorted=False)
    indices = listed.gather(1, at)
    unsure = (similarity.amin(1) < rough.amin(1) + ERROR).nonzero().flatten()
    if len(unsure):
        similarity[unsure], indices[unsure] = nearest(queries[unsure], bank, k)
    return similarity, indices
