"""What relucate makes of a GPU: one run, runs side by side, 32 runs, and seconds to 94 %.

    python benchmarks/gpu.py [--data folder:cifar10] [--json FILE] [--rounds 5] [--only TABLE ...]
    python benchmarks/gpu.py --smoke   # a minute on a CPU: does every part work?

Tables: `step` (milliseconds of a training step: a bare PyTorch loop; relucate with the same module,
and with the Keras net, which pads a stride on one side and so does a little more; the bare loop
captured in a CUDA graph by hand), `side` (seconds a run, with several side by side), `32` (a study
of 32 runs, evaluation included), `94` (seconds of a run to 94 % on CIFAR-10, evaluation included:
ResNet-9 in both orders, and in a loop written by hand; needs --data, and --target where the images
aren't the original ones: JPEG files of them end lower). All contenders of a table run in turn,
round by round, with the same settings of TF32; a ratio is the median over the rounds. Without
--data the images are random: speed doesn't depend on what they show.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
import torch.nn.functional as F
from throughput import FILTERS, SHAPE, interleave, keras_net, random_data, torch_net

TABLES = ("step", "side", "32", "94")
PRECISIONS = ("fp32", "tf32", "bf16")
WIDE = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1))
RATE, SMOOTHING = 0.4, 0.1  # of ResNet-9
AIRBENCH = "airbench94_muon, a net and a recipe tuned for it: 2.59 s on an A100, its README"


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Compute as a relucate run with this precision does."""
    from relucate.torch.precision import repeatable

    with repeatable(tf32=precision == "tf32"):
        yield


class Loop:
    """The loop that one writes by hand: channels last, Nesterov SGD, shuffled on the device."""

    def __init__(self, data: Any, batch: int, model: Any, precision: str, device: str) -> None:
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.x = torch.tensor(data.x_train).to(device).permute(0, 3, 1, 2)
        self.y = torch.tensor(data.y_train).to(device)
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        self.batch, self.device, self.bf16 = batch, device, precision == "bf16"
        self.smoothing = 0.0

    def step(self, x: Any, y: Any) -> None:
        """Train on one batch."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            loss = F.cross_entropy(self.model(x), y, label_smoothing=self.smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def batches(self, epochs: int) -> Iterator[Any]:
        """Yield the examples of each step."""
        for _ in range(epochs):
            order = torch.randperm(len(self.y), device=self.device)
            yield from order[: len(order) // self.batch * self.batch].split(self.batch)

    def bare(self, epochs: int) -> float:
        """Return the seconds of the plain loop."""
        synchronize()
        start = time.perf_counter()
        for index in self.batches(epochs):
            self.step(self.x[index], self.y[index])
        synchronize()
        return time.perf_counter() - start

    def captured(self, epochs: int) -> float:
        """Return the seconds of the loop whose step is one CUDA graph."""
        first = next(self.batches(1))
        x, y = self.x[first].clone(), self.y[first].clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step(x, y)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(x, y)
        synchronize()
        start = time.perf_counter()
        for index in self.batches(epochs):
            x.copy_(self.x[index])
            y.copy_(self.y[index])
            graph.replay()
        synchronize()
        return time.perf_counter() - start


def trained(data: Any, batch: int, model: Any, precision: str, device: str, epochs: int) -> float:
    """Return the seconds of relucate's trainer in `epochs` epochs, after one that captures."""
    from relucate.torch import train
    from relucate.train import Recipe

    recipe = Recipe(
        epochs=epochs + 1, batch_size=batch, lr=0.01, precision=precision, curve=0, reestimate=0
    )
    times: list[float] = []

    def note(report: Any) -> None:
        times.append(time.perf_counter())

    result = train(model, data, recipe, seed=0, device=device, on_epoch=note)
    if result.note:
        print(f"  note: {result.note}")
    return times[-1] - times[0]


def vgg(width: int, depth: int = 16) -> Any:
    """VGG for 32 x 32 images, as a Keras model."""
    from relucate import nets

    return nets.build("vgg", "before", SHAPE, 10, width=width, depth=depth)


def lowered(model: Any) -> Any:
    """Return a Keras model as relucate trains it."""
    from relucate.frameworks import lower
    from relucate.keras.framework import FRAMEWORK

    return lower(FRAMEWORK.read(model), check=False)


def cases(smoke: bool) -> dict[str, tuple[int, int, int, Callable[[], Any], Callable[[], Any]]]:
    """Return what is trained: steps, batch, epochs, the bare loop's net, the lowered one."""
    if smoke:
        tiny = ((4, 2), (8, 2))
        return {
            "2 convs, batch 8": (
                5,
                8,
                2,
                lambda: torch_net(SHAPE, tiny),
                lambda: lowered(keras_net(SHAPE, tiny)),
            )
        }
    return {
        "6 convs (32-128), batch 128": (
            100,
            128,
            4,
            torch_net,
            lambda: lowered(keras_net(SHAPE, FILTERS)),
        ),
        "6 convs (64-256), batch 512": (
            25,
            512,
            4,
            lambda: torch_net(SHAPE, WIDE),
            lambda: lowered(keras_net(SHAPE, WIDE)),
        ),
        "VGG16, width 64, batch 128": (
            50,
            128,
            4,
            lambda: as_torch(vgg(64)),
            lambda: lowered(vgg(64)),
        ),
    }


def as_torch(model: Any) -> Any:
    """Return a lowered model that takes channels first, for the bare loop."""
    inner = lowered(model)

    class ChannelsFirst(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(x.permute(0, 2, 3, 1))

    return ChannelsFirst()


def steps(given: argparse.Namespace, device: str) -> dict[str, Any]:
    """Measure the step of one run."""
    found: dict[str, Any] = {}
    for name, (count, batch, epochs, plain, ours) in cases(given.smoke).items():
        data = random_data(count, batch, SHAPE)
        for precision in given.precisions:
            if precision == "tf32" and device == "cpu":
                continue
            rows = contenders(data, batch, epochs, plain, ours, precision, device)
            with computing(precision):
                times = interleave(rows, given.rounds)
            found[f"{name}, {precision}"] = table(times, count * epochs)
            show(f"{name}, {precision}", found[f"{name}, {precision}"])
    return found


def contenders(
    data: Any,
    batch: int,
    epochs: int,
    plain: Callable[[], Any],
    ours: Callable[[], Any],
    precision: str,
    device: str,
) -> dict[str, Callable[[], float]]:
    """Return the contenders of one table, each with a new net in every round."""
    rows = {
        "bare loop": lambda: Loop(data, batch, plain(), precision, device).bare(epochs),
        "relucate, same net": lambda: trained(data, batch, plain(), precision, device, epochs),
        "relucate, Keras net": lambda: trained(data, batch, ours(), precision, device, epochs),
    }
    if device != "cpu":
        rows["captured by hand"] = lambda: Loop(data, batch, plain(), precision, device).captured(
            epochs
        )
    return rows


def table(times: dict[str, list[float]], count: int) -> dict[str, dict[str, float]]:
    """Return milliseconds a step, and the ratios to the bare and to the captured loop."""
    rows = {}
    for name, seconds in times.items():
        rows[name] = {"ms_per_step": 1000 * statistics.median(seconds) / count}
        for other in ("bare loop", "captured by hand"):
            if other in times:
                pairs = zip(times[other], seconds, strict=True)
                rows[name][f"of {other}"] = statistics.median(a / b for a, b in pairs)
    return rows


def images(given: argparse.Namespace) -> Any:
    """Return the data set, or random images of CIFAR-10's size."""
    from relucate.data import load, make

    if given.data:
        return load(given.data)
    import numpy as np

    train, test = (200, 100) if given.smoke else (50_000, 10_000)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (train + test, *SHAPE)).astype(np.uint8)
    y = np.arange(train + test) % 10
    return make("random images", x[:train], y[:train], x[train:], y[train:])


def study(data: Any, device: str, pairs: int, jobs: int, smoke: bool, **more: Any) -> Any:
    """Return the document of a new study and its seconds."""
    import relucate

    net, options = ("cnn", {"width": 4, "depth": 2} if smoke else {})
    options = more.pop("options", options)
    net = more.pop("net", net)
    recipe = {"epochs": 1 if smoke else 4, "precision": "bf16", **more.pop("recipe", {})}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        found = relucate.compare(
            net,
            data,
            options=options,
            recipe=recipe,
            pairs=pairs,
            jobs=jobs,
            device=device,
            progress=False,
            store=Path(folder) / "runs.sqlite",
            **more,
        ).to_dict()
        return found, time.perf_counter() - start


def side_by_side(given: argparse.Namespace, device: str) -> dict[str, Any]:
    """Measure the seconds a run with several side by side, the workers' start included."""
    data, rows = images(given), {}
    print("\nruns side by side\n jobs   runs  seconds  a run")
    for jobs in (1, 2) if given.smoke else (1, 4, 8, 16):
        pairs = max(2, jobs)
        found, seconds = study(data, device, pairs, jobs, given.smoke)
        runs = len(found["runs"])
        rows[str(jobs)] = {"runs": runs, "seconds": seconds, "seconds_per_run": seconds / runs}
        print(f"{jobs:>5} {runs:>6} {seconds:>8.1f} {seconds / runs:>6.2f}")
    return rows


def many(given: argparse.Namespace, device: str) -> dict[str, Any]:
    """Measure a study of 32 runs, as `compare` starts it by itself."""
    found, seconds = study(images(given), device, 2 if given.smoke else 16, 0, given.smoke)
    runs = len(found["runs"])
    print(f"\n{runs} runs: {seconds:.1f} s, {seconds / runs:.2f} s a run")
    return {"runs": runs, "seconds": seconds, "jobs": found["engine"]["jobs"]}


def to_target(given: argparse.Namespace, device: str) -> dict[str, Any]:
    """Measure the seconds of training until the score on the test part reaches the target."""
    if not given.data:
        print("\nseconds to the target: needs CIFAR-10, --data folder:cifar10; skipped")
        return {}
    data = images(given)
    print(f"\nseconds of a run to {given.target:.0%} (ResNet-9; {AIRBENCH})")
    rows = {"anchor": AIRBENCH, "target": given.target, "runs": list(reached(given, data, device))}
    for run in rows["runs"]:
        seconds = "never" if run["seconds"] is None else f"{run['seconds']:.1f} s"
        print(f"{run['name']:<30} {seconds}, ends at {100 * run['end']:.2f} %")
    return rows


def reached(given: argparse.Namespace, data: Any, device: str) -> Iterator[dict[str, Any]]:
    """Yield when each run reaches the target: the loop by hand, then the pairs, one at a time."""
    epochs, batch, options = (1, 8, {"width": 4}) if given.smoke else (24, 512, {})
    seconds, curve = by_hand(data, device, epochs, batch, options)
    yield arrival("by hand, before, seed 0", seconds, curve, given.target)
    recipe = {
        "epochs": epochs,
        "augment": ["flip", "crop"],
        "batch_size": batch,
        "lr": RATE,
        "label_smoothing": SMOOTHING,
        "curve": 10_000,
    }
    net = f"{Path(__file__).with_name('resnet9.py')}:build"
    pairs = {"pairs": 1, "first_seed": 0, "jobs": 1}
    found, _ = study(data, device, smoke=given.smoke, net=net, options=options, recipe=recipe,
                     **pairs)  # fmt: skip
    for run in found["runs"]:
        name = f"relucate, {run['arm']}, seed {run['seed']}"
        yield arrival(name, run["seconds"], run["curve"]["accuracy"], given.target)


def arrival(name: str, seconds: float, curve: list[float], target: float) -> dict[str, Any]:
    """Return after how many seconds a learning curve reaches the target, None if it doesn't."""
    at = next((k + 1 for k, score in enumerate(curve) if score >= target), None)
    return {
        "name": name,
        "seconds": None if at is None else seconds * at / len(curve),
        "end": curve[-1],
    }


def by_hand(
    data: Any, device: str, epochs: int, batch: int, options: dict[str, int]
) -> tuple[float, list[float]]:
    """Return the seconds and the learning curve of ResNet-9 in a loop as one writes it."""
    from resnet9 import build

    torch.manual_seed(0)
    loop = Loop(data, batch, build("before", SHAPE, 10, **options), "bf16", device)
    steps = epochs * (len(loop.y) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(loop.optimizer, RATE, total_steps=steps)
    x = loop.x.float()
    mean, scale = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    test = (torch.tensor(data.x_test).to(device).permute(0, 3, 1, 2).float() - mean) / scale
    labels, curve = torch.tensor(data.y_test).to(device), []
    loop.smoothing = SMOOTHING
    synchronize()
    start = time.perf_counter()
    for _ in range(epochs):
        loop.model.train()
        for index in loop.batches(1):
            loop.step(augmented((x[index] - mean) / scale), loop.y[index])
            schedule.step()
        loop.model.eval()
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16):
            guess = torch.cat([loop.model(part).argmax(1) for part in test.split(1000)])
        curve.append(float((guess == labels).float().mean()))
    return time.perf_counter() - start, curve


def augmented(x: Any) -> Any:
    """Return the images mirrored at random, and a crop from the same place of each."""
    row, column = torch.randint(0, 9, (2,)).tolist()
    x = F.pad(x, (4, 4, 4, 4))[..., row : row + SHAPE[0], column : column + SHAPE[1]]
    return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print one table of steps."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n{'':<22}" + "".join(f"{name:>22}" for name in columns))
    for name, row in rows.items():
        print(f"{name:<22}" + "".join(f"{value:>22.2f}" for value in row.values()))


def main() -> None:
    """Print the tables, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help="CIFAR-10, such as folder:cifar10")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="of `step`"
    )
    parser.add_argument("--target", type=float, default=0.94, help="of `94`, from 0 to 1")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--smoke", action="store_true", help="small sizes, on a CPU too")
    given = parser.parse_args()
    if not torch.cuda.is_available() and not given.smoke:
        parser.error("PyTorch sees no NVIDIA GPU: --smoke tries everything on the CPU.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    print(f"{card}, torch {torch.__version__}, {os.cpu_count()} cores")
    parts = {"step": steps, "side": side_by_side, "32": many, "94": to_target}
    found = {name: parts[name](given, device) for name in given.only}
    about = {"card": card, "torch": torch.__version__, "cores": os.cpu_count()}
    if given.json:
        given.json.write_text(json.dumps({**about, "smoke": given.smoke, **found}, indent=1))


if __name__ == "__main__":
    main()
