"""Devices: checked before a worker starts, with what came and what is visible; shared in turn."""

import dataclasses

import numpy as np
import pytest
import torch

from relucate.data import make
from relucate.errors import InputError
from relucate.study import devices
from relucate.study.devices import Devices, best_side, gpus_of
from relucate.study.environment import own_gpu
from relucate.study.plan import StudyPlan
from relucate.study.source import resolve
from relucate.study.vary import arms_from
from relucate.torch.framework import FRAMEWORK
from relucate.train import Recipe

from .test_driver import INSPECTION, builder


@pytest.fixture
def four(monkeypatch, tmp_path):
    """A machine with four NVIDIA GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    installed = devices._installed_gpus
    for number in range(4):
        (tmp_path / f"nvidia{number}").touch()
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(devices, "_installed_gpus", lambda: installed(str(tmp_path)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def made_plan(**changes):
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 4)).astype(np.float32)
    data = make("few", x, np.arange(20) % 2, x, np.arange(20) % 2)
    recipe = changes.pop("recipe", Recipe(epochs=1, batch_size=4))
    return StudyPlan(arms_from(["before", "after"]), resolve(builder), data, recipe, **changes)


class TestNames:
    @pytest.mark.parametrize(
        ("text", "kind", "names"),
        [
            ("auto", "auto", ("auto",)),
            ("cpu", "cpu", ("cpu",)),
            ("cuda", "cuda", ("cuda",)),
            ("cuda:1", "cuda", ("cuda:1",)),
            ("cuda:0, cuda:2", "cuda", ("cuda:0", "cuda:2")),
            ("mps", "mps", ("mps",)),
        ],
    )
    def test_known_ones(self, text, kind, names):
        assert (Devices.of(text).kind, Devices.of(text).names) == (kind, names)

    @pytest.mark.parametrize(
        "text",
        ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "cuda,cpu", "cuda,cuda", "cuda:0,cuda:0",
         "cuda:0,cuda", "auto,cpu", "mps:0,mps:1", "mps:0", "xpu:1", "cpu:0", "CUDA", 0, None,
         ["cuda"]],
    )  # fmt: skip
    def test_others_are_refused_with_what_came(self, text):
        with pytest.raises(InputError, match="device must be auto, cpu, cuda, mps") as error:
            Devices.of(text)
        assert repr(text) in str(error.value)


class TestGpus:
    def test_all_visible_ones_or_those_that_are_named(self, four):
        assert gpus_of(Devices.of("cuda")) == gpus_of(Devices.of("auto")) == ("0", "1", "2", "3")
        assert gpus_of(Devices.of("cuda:0,cuda:2")) == ("0", "2")
        assert gpus_of(Devices.of("cpu")) == ()

    def test_of_those_that_the_user_left_visible(self, four, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7f, 1,0")
        assert gpus_of(Devices.of("cuda:1,cuda:3")) == ("GPU-7f", "0")

    def test_one_that_is_not_there(self, four, monkeypatch):
        monkeypatch.setattr(torch, "empty", no_such_device)
        with pytest.raises(InputError, match=r"'cuda:4' can't be used .*cuda:0, cuda:1, cuda:2"):
            gpus_of(Devices.of("cuda:1,cuda:4"))

    @pytest.mark.skipif(torch.accelerator.is_available(), reason="has a GPU")
    @pytest.mark.parametrize(
        ("device", "why"),
        [
            ("cuda", ".*(CUDA|NVIDIA).*"),
            ("cuda:1", ".*(CUDA|NVIDIA).*"),
            ("mps", "it needs an Apple GPU, and a PyTorch that was built for it"),
            ("xpu", ".*XPU.*"),
        ],
    )
    def test_none_where_one_is_asked_for(self, device, why):
        seen = r"\. What it sees: cpu\. Take one of these, or auto\.$"
        with pytest.raises(InputError, match=f"'{device}' can't be used by PyTorch: {why}{seen}"):
            gpus_of(Devices.of(device))

    def test_all_kinds_that_are_there_are_listed(self, four, monkeypatch):
        for other in (torch.backends.mps, torch.xpu):
            monkeypatch.setattr(other, "is_available", lambda: True)
        monkeypatch.setattr(torch, "empty", no_such_device)
        with pytest.raises(InputError, match=r"sees: cpu, cuda:0, .*cuda:3, mps, xpu\. Take"):
            gpus_of(Devices.of("cuda:7"))

    @pytest.mark.parametrize("device", ["cuda", "cuda:0,cuda:1", "cpu"])
    def test_an_engine_that_chooses_for_itself_refuses_one_before_any_work(self, four, device):
        with pytest.raises(InputError, match="whose backend chooses the device: leave the device"):
            made_plan(engine="keras", device=device)

    def test_an_open_choice_imports_no_pytorch(self, four, monkeypatch):
        monkeypatch.setattr("relucate.frameworks.named", lambda name: pytest.fail("asked"))
        assert gpus_of(Devices.of("auto")) == ("0", "1", "2", "3")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7f")
        assert gpus_of(Devices.of("auto")) == ("2", "GPU-7f")
        for none in ("", "-1"):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
            assert gpus_of(Devices.of("auto")) == ()

    def test_where_none_is_installed_there_is_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        assert devices._installed_gpus(str(tmp_path)) == ()

    def test_the_smallest_number_that_is_nearly_as_fast_as_any(self):
        assert best_side({1: 1.0}) == 1
        assert best_side({1: 1.0, 2: 0.97}) == 1
        assert best_side({1: 1.0, 2: 0.6, 4: 0.58, 8: 0.59}) == 2
        assert best_side({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3}) == 8

    def test_workers_take_them_in_turn(self):
        found = [own_gpu(("0", "2"), number)["CUDA_VISIBLE_DEVICES"] for number in range(5)]
        assert found == ["0", "2", "0", "2", "0"]
        assert own_gpu((), 3) == {}


def no_such_device(*args, **kwargs):
    raise RuntimeError("CUDA error: invalid device ordinal\nCUDA kernel errors ...")


class TestPlans:
    def test_the_kind_identifies_a_run_and_not_which_gpu_it_had(self, four):
        plans = [made_plan(device=text) for text in ("cuda", "cuda:1", "cuda:0,cuda:3")]
        assert {plan.inspection()["device"] for plan in plans} == {"cuda"}
        assert [plan.setup.gpus for plan in plans] == [("0", "1", "2", "3"), ("1",), ("0", "3")]

    def test_nonsense_is_refused_with_the_plan(self):
        with pytest.raises(InputError, match="got 'tpu'"):
            made_plan(device="tpu")

    def test_only_runs_of_a_gpu_in_full_float32_are_new(self, four):
        def engine(device, **recipe):
            made = made_plan(recipe=Recipe(batch_size=4, **recipe), device=device)
            found = {"name": "torch", "reason": "", "backend": "torch", "device": device}
            return made.spec(dataclasses.replace(INSPECTION, engine=found), 0, 0).engine

        assert "float32" not in engine("cpu")
        assert "float32" not in engine("cuda", precision="bf16")
        assert "float32" not in engine("cuda", precision="tf32")
        assert engine("cuda")["float32"] == "full"

    @pytest.mark.parametrize("device", ["auto", "cpu", "mps"])
    def test_tf32_is_refused_with_the_plan_where_there_is_none(self, device):
        tf32 = Recipe(batch_size=4, precision="tf32")
        used = "cpu" if device == "auto" else device
        with pytest.raises(InputError, match=rf"tf32 needs an NVIDIA GPU .* is {used}, which"):
            made_plan(recipe=tf32, device=device)

    def test_tf32_of_one_arm_is_refused_too(self):
        arms = arms_from(["before"], {"precision": ["fp32", "tf32"]})
        with pytest.raises(InputError, match="tf32 needs an NVIDIA GPU"):
            dataclasses.replace(made_plan(), arms=arms)

    def test_tf32_where_there_may_be_a_gpu(self, four):
        tf32 = Recipe(batch_size=4, precision="tf32")
        for device in ("auto", "cuda", "cuda:1"):
            assert made_plan(recipe=tf32, device=device).recipe == tf32

    def test_the_nodes_of_a_cluster_may_have_gpus(self):
        assert made_plan(recipe=Recipe(batch_size=4, precision="tf32"), executor="ray")

    def test_a_gpu_has_at_most_eight_workers_unless_jobs_says_so(self, four, monkeypatch):
        monkeypatch.setattr("relucate.cores.cores", lambda: 100)
        assert made_plan(pairs=99, device="cuda").workers == 32
        assert made_plan(pairs=99, device="cuda:2").workers == 8
        assert made_plan(pairs=99, device="cuda:2", jobs=12).workers == 12
        assert made_plan(pairs=99, device="cpu").workers == 100

    def test_the_keras_engine_asks_no_gpu(self, four):
        assert made_plan(engine="keras").gpus == ()


def test_the_device_of_a_framework_is_its_kind(four):
    assert FRAMEWORK.device("cuda:3") == "cuda"
    assert FRAMEWORK.device("cpu") == "cpu"
