"""compare(run=...) with the Trainer of Hugging Face: docs/your-own.md shows the same as text."""

import pytest
import torch

import relucate

transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
pytest.importorskip("accelerate", reason="accelerate isn't installed, which the Trainer needs")
pytestmark = [
    pytest.mark.usefixtures("in_process"),
    pytest.mark.filterwarnings("ignore"),  # of the library's own imports
]

random = torch.Generator().manual_seed(0)
PIXELS = torch.randn(64, 3, 16, 16, generator=random)
LABELS = (PIXELS.mean((1, 2, 3)) > 0).long()


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return {"pixel_values": PIXELS[index], "labels": LABELS[index]}


def vit():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        num_labels=2, intermediate_size=32, image_size=16, patch_size=4, **sizes
    )
    return transformers.ViTForImageClassification(config)


def resnet():
    config = transformers.ResNetConfig(
        num_labels=2, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    return transformers.ResNetForImageClassification(config)


@pytest.mark.parametrize("network", [vit, resnet])
def test_its_trainer_is_ones_own_training(network, tmp_path):
    def train(order, seed):
        model = network()
        model, _ = relucate.rebuild(
            model, order, seed=seed, example=PIXELS[:1], init=model._init_weights
        )
        assert type(model) is type(network())
        arguments = transformers.TrainingArguments(
            str(tmp_path), seed=seed, report_to="none", save_strategy="no", disable_tqdm=True
        )
        trainer = transformers.Trainer(
            model, arguments, train_dataset=Images(), eval_dataset=Images()
        )
        trainer.train()
        return trainer.evaluate()["eval_loss"]

    study = relucate.compare(run=train, metric="loss", margin=0.01, pairs=2, jobs=1, progress=False)
    runs = study.to_dict()["runs"]
    assert [run["status"] for run in runs] == ["done"] * 4
    assert len({run["metric"] for run in runs}) == 4


def test_without_init_it_is_refused_with_the_reason():
    with pytest.raises(relucate.Refused, match="has parameters and no reset_parameters"):
        relucate.rebuild(vit(), "after", example=PIXELS[:1])
