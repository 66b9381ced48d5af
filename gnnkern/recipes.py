"""What each model is trained with unless told otherwise, and where that comes from."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Recipe:
    """What a model is trained with unless told otherwise."""

    hidden: int  # width of the hidden layer, per head
    heads: int  # attention heads of the first layer; 1 where there is no attention
    dropout: float  # on the input of each layer, and on attention weights
    lr: float
    weight_decay: float
    decay_all: bool  # weight decay on every layer, or on the first alone
    epochs: int
    source: str


# Networks that solve systems of equations: there is no path of plain torch ops beside theirs.
WITHOUT_PLAIN_PATH = ("diffusion",)

_GCN = Recipe(
    hidden=16,
    heads=1,
    dropout=0.5,
    lr=0.01,
    weight_decay=5e-4,
    decay_all=False,
    epochs=200,
    source="Kipf and Welling 2017, section 5.2",
)
_APPNP = replace(
    _GCN,
    hidden=64,
    weight_decay=5e-3,
    source="Klicpera et al. 2019, section 5; no dropout of edges, a fixed number of epochs",
)
RECIPES = {
    "gcn": _GCN,
    "sage": replace(_GCN, source="the recipe of the GCN"),
    "gat": Recipe(
        hidden=8,
        heads=8,
        dropout=0.6,
        lr=0.005,
        weight_decay=5e-4,
        decay_all=True,
        epochs=300,
        source="Velickovic et al. 2018, section 3.3; a fixed number of epochs",
    ),
    "gin": replace(_GCN, hidden=32, source="the recipe of the GCN, with wider networks"),
    "appnp": _APPNP,
    "diffusion": replace(_APPNP, source="the recipe of APPNP"),
}
