"""Training of small node classifiers: recipes, the training loop, and what it measured."""

import contextlib
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkern import backends
from gnnkern.data import GraphData, load
from gnnkern.graph import Graph
from gnnkern.memory import PeakMemory
from gnnkern.metrics import accuracy, roc_auc
from gnnkern.nn import models
from gnnkern.nn.net import Net
from gnnkern.nn.plain import PlainEdges
from gnnkern.progress import Epoch, Report, training_progress
from gnnkern.recipes import RECIPES, WITHOUT_PLAIN_PATH, Recipe

# Bag-of-words features fill about 1 % of their matrix, measured ones more than half.
SPARSE_FILL = 0.1


@dataclass
class TrainResult:
    """What a training reached and what it cost."""

    data: str
    model: str
    path: str  # "gnnkern" or "plain"
    seed: int
    split: int
    metric: str  # "accuracy" or "ROC AUC"
    test: float  # at the epoch that was best on the validation nodes
    val: float
    best_epoch: int
    stopped: str  # "epochs", "patience" or "asked"
    prepare_seconds: float  # features, graph and parameters, before the first epoch
    train_seconds: float  # all epochs with their evaluations
    peak_memory: int  # bytes added by preparation and training
    threads: int
    settings: dict[str, Any]
    losses: list[float] = field(repr=False)  # per epoch, on the training nodes
    val_scores: list[float] = field(repr=False)
    epoch_seconds: list[float] = field(repr=False)  # forward, backward and step

    @property
    def epochs(self) -> int:
        """Number of epochs trained."""
        return len(self.losses)

    @property
    def epoch_median(self) -> float:
        """Median seconds of an epoch: forward, backward and step, without the evaluation."""
        return statistics.median(self.epoch_seconds)

    @property
    def epoch_iqr(self) -> float:
        """Interquartile range of the seconds of an epoch."""
        if len(self.epoch_seconds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.epoch_seconds, n=4, method="inclusive")
        return third - first

    def to_dict(self) -> dict[str, Any]:
        """Return every field and every property, ready for JSON."""
        return {
            **asdict(self),
            "epochs": self.epochs,
            "epoch_median": self.epoch_median,
            "epoch_iqr": self.epoch_iqr,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainResult":
        """Return the result that `to_dict` wrote."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


def train_node_classifier(
    data: GraphData | str,
    model: str = "gcn",
    *,
    epochs: int | None = None,
    seed: int = 0,
    lr: float | None = None,
    weight_decay: float | None = None,
    hidden: int | None = None,
    heads: int | None = None,
    dropout: float | None = None,
    split: int = 0,
    patience: int | None = None,
    plain: bool = False,
    backend: str | None = None,
    device: torch.device | str = "cpu",
    progress: bool | Report = True,
) -> TrainResult:
    """Train a network of two layers to classify nodes; full batch, Adam, cross entropy.

    The score is accuracy, or the area under the ROC curve where there are two classes. It is taken
    on the test nodes at the epoch with the best score on the validation nodes; the lower
    validation loss decides between equals. The same seed gives the same numbers, bit for bit, on
    the same machine with the same number of threads.

    Args:
        data: A graph with features, labels and masks, or a source for `gnnkern.data.load`.
        model: "gcn", "sage" or "gat".
        epochs: Number of epochs; this and the next options default to the model's `RECIPES`.
        seed: Seed of parameters and dropout; torch's own generator is left as it was.
        lr: Learning rate.
        weight_decay: Weight decay.
        hidden: Width of the hidden layer, per head.
        heads: Attention heads of the first layer ("gat" only).
        dropout: Probability of dropping an input element or an attention weight.
        split: Which of the data's splits.
        patience: Stop after this many epochs without a better validation score.
        plain: Take the plain torch path of the same network.
        backend: Run every op on this backend; else each op chooses.
        device: Where to train.
        progress: Whether to show progress, or a function that is called after each epoch and
            stops the training where it returns True.

    Returns:
        Scores, losses, times and memory. Memory on the CPU is that of the process: call `warm_up`
        first, or let `gnnkern.measure` train in a process of its own.

    Raises:
        ValueError: An option is out of range, or the data lack features, labels or masks.
    """
    data = load(data) if isinstance(data, str) else data
    overrides = {
        "epochs": epochs,
        "lr": lr,
        "weight_decay": weight_decay,
        "hidden": hidden,
        "heads": heads,
        "dropout": dropout,
    }
    if patience is not None and patience < 1:
        raise ValueError(f"train: patience must be >= 1, got {patience}")
    _check_device(device)
    recipe = recipe_for(model, overrides)
    if plain and model in WITHOUT_PLAIN_PATH:
        raise ValueError(f"train: {model} has no path of plain torch ops")
    targets = _targets(data, split, torch.device(device))
    reporting: contextlib.AbstractContextManager[Report]
    if isinstance(progress, bool):
        title = f"{data.name} {model}{' plain' if plain else ''} seed {seed}"
        reporting = training_progress(title, enabled=progress)
    else:
        reporting = contextlib.nullcontext(progress)

    choice = contextlib.nullcontext() if backend is None else backends.use_backend(backend)
    with reporting as report, seeded(seed, targets.y.device), choice:
        memory = PeakMemory(device)
        with memory:
            run = _Run(data, model, recipe, targets, plain)
            run.train(patience, report)
    return TrainResult(
        data=data.name,
        model=model,
        path="plain" if plain else "gnnkern",
        seed=seed,
        split=split,
        metric=targets.metric,
        test=run.best.test,
        val=run.best.val,
        best_epoch=run.best_epoch,
        stopped=run.stopped,
        prepare_seconds=run.prepare_seconds,
        train_seconds=run.train_seconds,
        peak_memory=memory.added,
        threads=torch.get_num_threads(),
        settings=asdict(recipe),
        losses=run.losses,
        val_scores=run.val_scores,
        epoch_seconds=run.epoch_seconds,
    )


def warm_up(data: GraphData, model: str, **options: Any) -> None:
    """Train one epoch and forget it, so that code loaded on first use is not measured later.

    The graph is built anew for the training that follows: `data` keeps nothing from this one.
    """
    options = {**options, "epochs": 1, "progress": False}
    train_node_classifier(replace(data), model, **options)
    gc.collect()


class _Targets(NamedTuple):
    y: Tensor  # [N]
    train: Tensor  # node ids of the training part
    val: Tensor
    test: Tensor
    num_classes: int
    metric: str


class _Scores(NamedTuple):
    val: float
    val_loss: float
    test: float

    def better_than(self, other: "_Scores") -> bool:
        return (self.val, -self.val_loss) > (other.val, -other.val_loss)


class _Run:
    """One training: the network, its inputs, and the record of its epochs."""

    def __init__(
        self, data: GraphData, model: str, recipe: Recipe, targets: _Targets, plain: bool
    ) -> None:
        assert data.x is not None
        start = time.perf_counter()
        self.recipe, self.targets = recipe, targets
        self.device = targets.y.device
        self.x = _features(data.x.to(self.device), recipe)  # [N, F]
        self.graph: Graph | PlainEdges
        if plain:
            self.graph = PlainEdges(data.edge_index.to(self.device), data.num_nodes)
        else:
            self.graph = data.graph().to(self.device).prepare()
        self.net = network(model, data.num_features, targets.num_classes, recipe).to(self.device)
        self.optimizer = optimizer_for(self.net, recipe)
        self.prepare_seconds = time.perf_counter() - start

        self.losses: list[float] = []
        self.val_scores: list[float] = []
        self.epoch_seconds: list[float] = []
        self.best = _Scores(-1.0, float("inf"), 0.0)
        self.best_epoch = 0
        self.stopped = "epochs"

    def train(self, patience: int | None, report: Report) -> None:
        """Train for the recipe's epochs, until patience runs out, or until asked to stop."""
        start = time.perf_counter()
        for epoch in range(1, self.recipe.epochs + 1):
            self.epoch_seconds.append(self._step())
            scores = self._evaluate()
            self.val_scores.append(scores.val)
            if scores.better_than(self.best):
                self.best, self.best_epoch = scores, epoch
            asked = report(Epoch(epoch, self.recipe.epochs, self.losses[-1], scores.val))
            if asked:
                self.stopped = "asked" if epoch < self.recipe.epochs else "epochs"
                break
            if patience is not None and epoch - self.best_epoch >= patience:
                self.stopped = "patience"
                break
        self.train_seconds = time.perf_counter() - start

    def _step(self) -> float:
        """Train one epoch and return its seconds."""
        targets = self.targets
        _wait_for(self.device)
        start = time.perf_counter()
        self.net.train()
        self.optimizer.zero_grad()
        logits = self.net(self.x, self.graph)  # [N, C]
        loss = F.cross_entropy(logits[targets.train], targets.y[targets.train])
        loss.backward()
        self.optimizer.step()
        _wait_for(self.device)
        seconds = time.perf_counter() - start
        self.losses.append(loss.item())
        return seconds

    @torch.no_grad()
    def _evaluate(self) -> _Scores:
        targets = self.targets
        self.net.eval()
        logits = self.net(self.x, self.graph)  # [N, C]
        val_loss = F.cross_entropy(logits[targets.val], targets.y[targets.val]).item()
        score = roc_auc if targets.metric == "ROC AUC" else accuracy
        val, test = (
            score(logits[nodes], targets.y[nodes]) for nodes in (targets.val, targets.test)
        )
        return _Scores(val, val_loss, test)


def recipe_for(model: str, overrides: dict[str, Any]) -> Recipe:
    """The recipe of a model with those values replaced that are not None.

    Raises:
        ValueError: there is no such model, or a value is out of range.
    """
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if model not in RECIPES:
        raise ValueError(f"train: model must be one of {', '.join(RECIPES)}, got {model!r}")
    if model != "gat" and overrides.get("heads", 1) != 1:
        raise ValueError(f"train: heads must be 1 for {model}, got {overrides['heads']}")
    recipe = replace(RECIPES[model], **overrides)
    for name in ("epochs", "hidden", "heads"):
        if getattr(recipe, name) < 1:
            raise ValueError(f"train: {name} must be >= 1, got {getattr(recipe, name)}")
    if recipe.lr <= 0:
        raise ValueError(f"train: lr must be > 0, got {recipe.lr}")
    if recipe.weight_decay < 0:
        raise ValueError(f"train: weight_decay must be >= 0, got {recipe.weight_decay}")
    if not 0 <= recipe.dropout < 1:
        raise ValueError(f"train: dropout must be in [0, 1), got {recipe.dropout}")
    return recipe


def _check_device(device: torch.device | str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"train: device {str(device)!r} cannot be used: {first_line}") from None


def check_trainable(data: GraphData, split: int = 0) -> None:
    """Raise ValueError where `data` lack what a training on `split` needs."""
    fields = ("x", "y", "train_mask", "val_mask", "test_mask")
    missing = [name for name in fields if getattr(data, name) is None]
    if missing:
        raise ValueError(f"train: {data.name} has no {', '.join(missing)}: nothing to train on")
    if data.is_bipartite:
        raise ValueError(f"train: {data.name} is bipartite; the networks here need one node set")
    if not 0 <= split < data.num_splits:
        raise ValueError(f"train: split must be in [0, {data.num_splits}), got {split}")
    for name in ("train_mask", "val_mask", "test_mask"):
        if not getattr(data, name)[split].any():
            raise ValueError(f"train: {data.name} has no nodes in {name} of split {split}")


def _targets(data: GraphData, split: int, device: torch.device) -> _Targets:
    check_trainable(data, split)
    assert data.y is not None
    masks = (data.train_mask, data.val_mask, data.test_mask)
    train, val, test = (
        mask[split].nonzero()[:, 0].to(device) for mask in masks if mask is not None
    )
    metric = "ROC AUC" if data.num_classes == 2 else "accuracy"
    return _Targets(data.y.to(device), train, val, test, data.num_classes, metric)


def to_sum_one(x: Tensor) -> Tensor:  # [N, F]
    """Rows scaled so that they sum to 1; those of zeros stay."""
    return x / x.sum(1, keepdim=True).clamp(min=1e-12)


def _features(x: Tensor, recipe: Recipe) -> Tensor:  # [N, F]
    """Return bag-of-words features with rows that sum to 1, in CSR; others as they are."""
    if x.numel() == 0 or x.min() < 0 or x.count_nonzero() > SPARSE_FILL * x.numel():
        return x
    x = to_sum_one(x)
    # A layer that has to aggregate before its linear map needs dense rows.
    if x.shape[1] <= recipe.hidden * recipe.heads:
        return x
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return x.to_sparse_csr()


def network(model: str, in_channels: int, num_classes: int, recipe: Recipe) -> Net:
    """The network of a recipe."""
    hidden, dropout = recipe.hidden, recipe.dropout
    if model == "gat":
        return models.gat(
            in_channels, num_classes, hidden=hidden, heads=recipe.heads, dropout=dropout
        )
    build: Callable[..., Net] = getattr(models, model)
    return build(in_channels, num_classes, hidden=hidden, dropout=dropout)


def optimizer_for(net: Net, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe."""
    groups = []
    for depth, conv in enumerate(net.convs):
        decay = recipe.weight_decay if recipe.decay_all or depth == 0 else 0.0
        groups.append({"params": list(conv.parameters()), "weight_decay": decay})
    return torch.optim.Adam(groups, lr=recipe.lr)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside, and leave its generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
