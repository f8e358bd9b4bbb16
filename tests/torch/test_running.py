"""Files of torch.export, and the inputs of other sizes that a module may take."""

import numpy as np
import pytest
import torch
from tests.torch import zoo

import relucate
from relucate.errors import InputError
from relucate.torch.running import export, load_exported, other_sizes


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((8, 3, 8, 6), [(2, 3, 4, 3), (2, 3, 16, 12)]),
        ((8, 3, 64, 40), [(2, 3, 32, 20), (2, 3, 96, 72)]),
        ((8, 5, 10), [(2, 5, 5), (2, 5, 20), (2, 2, 10), (2, 10, 10)]),
        ((8, 7), [(2, 3), (2, 14)]),
        ((8, 3, 1, 1), [(2, 3, 2, 2)]),
        ((8,), []),
    ],
)
def test_smaller_and_larger_inputs(shape, found):
    x = np.arange(np.prod(shape)).reshape(shape)
    resized = [one for (one,) in other_sizes([x])]
    assert [one.shape for one in resized] == found
    assert all(np.isin(one, x).all() for one in resized)


def test_all_inputs_change_together():
    image, vector = np.ones((8, 3, 4, 4)), np.ones((8, 5))
    shapes = [[x.shape for x in xs] for xs in other_sizes([image, vector])]
    assert shapes == [[(2, 3, 2, 2), (2, 5)], [(2, 3, 8, 8), (2, 5)]]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_saved_module_takes_any_batch_and_comes_with_its_example(tmp_path, batch):
    factory, shape = zoo.MODELS["vgg"]
    model = zoo.randomize(factory(), 3).eval()
    example = (batch, *shape[1:])
    export(model, tmp_path / "net.pt2", example)
    again, found = load_exported(tmp_path / "net.pt2")
    assert found.shape[1:] == torch.Size(example[1:])
    x = torch.randn(7, *shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x))
    assert relucate.verify(model, again, example=found).passed


def test_files_that_torch_export_did_not_write(tmp_path):
    with pytest.raises(InputError, match=r"no file .*gone\.pt2"):
        load_exported(tmp_path / "gone.pt2")
    (tmp_path / "bad.pt2").write_text("hello")
    with pytest.raises(InputError, match=r"bad\.pt2' is no \.pt2 archive.*torch\.export"):
        load_exported(tmp_path / "bad.pt2")
