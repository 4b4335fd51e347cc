"""What the configurations of methods with one critic between vectors share: where the negatives and the positives are from."""

from huggingface_hub.dataclasses import strict

from .configuration_infomax import InfoMaxConfig


@strict
class ContrastiveConfig(InfoMaxConfig):
    r"""Negatives and positives of the methods that compare vectors by one critic (CMC, InstDisc).

    Args:
        temperature (`float`): of the critic, omega in Wu et al. 2020 (0.07 in both papers).
        bound (`str`): "infonce" (the m+1-way softmax), "jsd" or "dv"; the method may have others.
        negatives (`str`): "batch", the other images of the batch; or samples of the whole data that a memory bank remembers, for
            which a run needs its training state: "bank", of all; "ball", of the background neighbours, which are like the image
            (BALL, LA); "annulus", of those that are not its close neighbours (ANN).
        num_negatives (`int`, *optional*): m, other images each anchor is compared with; None: all of the batch, what the paper has
            from a bank, and all of a ball, but at most 4,096.
        shared_negatives (`bool`): of a bank, one draw for the batch instead of one for each image; far faster.
        positives (`str`): "own", or "close": the close neighbours as well (LA).
        ball_size (`int` or `float`): the background neighbours: an integer is their number, a float their share of the data.
        anneal (`str`, *optional*): "linear", "cosine" or "step": the ball falls from all data to `ball_size`, and the close
            neighbours grow from none to all of them (BALL+, ANN+).
        anneal_epochs (`float`): how long that takes.
        close_neighbors (`str`): "clusters", the union over k-means clusterings of the bank, by FAISS; or "nearest".
        num_clusters, num_clusterings, cluster_iterations (`int`): of "clusters": 300 for CIFAR-10 and 30,000 for ImageNet; 10; 20.
        num_neighbors (`int`): of "nearest".
        warmup_epochs (`int`): with negatives of all data and the own positive alone, before ball and neighbours (LA: 10 on
            ImageNet).
        bank_momentum (`float`): alpha, of the bank's rows (0.5 in both papers; 0: only the newest view).
        bank_positive (`str`): the anchor's positive: "bank", as the bank remembers it, as its negatives are known; "batch", another
            view as it is encoded now. A critic can tell now from then: on CIFAR-10 that is all that CMC with "batch" learned.
        bank_fill (`str`): "forward", a forward pass before the first step; "random", unit vectors, which are noise for an epoch.
        bank_dtype (`str`): "float32" or "bfloat16", of the rows.
        z_momentum (`float`): of the running mean of Z in "nce".
    """

    model_type = "infomax_contrastive"

    temperature: float = 0.07
    bound: str = "infonce"
    negatives: str = "batch"
    num_negatives: int | None = None
    shared_negatives: bool = False
    positives: str = "own"
    ball_size: int | float = 4096
    anneal: str | None = None
    anneal_epochs: float | int = 0.0
    close_neighbors: str = "clusters"
    num_clusters: int = 300
    num_clusterings: int = 10
    cluster_iterations: int = 20
    num_neighbors: int = 10
    warmup_epochs: int = 0
    bank_momentum: float | int = 0.5
    bank_positive: str = "bank"
    bank_fill: str = "forward"
    bank_dtype: str = "float32"
    z_momentum: float | int = 0.99


#: The regions that negatives are drawn from by the names of the methods (Wu et al. 2020, section 5); "+" is annealed.
REGIONS = {
    "ball": {"negatives": "ball"},
    "ann": {"negatives": "annulus"},
    "ball+": {"negatives": "ball", "anneal": "linear", "anneal_epochs": 100},
    "ann+": {"negatives": "annulus", "anneal": "linear", "anneal_epochs": 100},
}

__all__ = ["ContrastiveConfig"]
