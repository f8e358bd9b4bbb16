"""What is true of keras.applications: where their norms sit, and what the rules find there.

One member per family by default, all of them in the nightly run.
"""

import keras
import pytest

import relucate
import relucate.keras

LNA, LN, NAL = "linear-norm-act", "linear-norm", "norm-act-linear"
# name: smallest side, norms per order, findings per rule
EXPECTED = {
    "VGG16": (32, {}, {}),
    "VGG19": (32, {}, {}),
    "ResNet50": (32, {LNA: 33, LN: 20}, {"N101": 53, "N103": 33}),
    "ResNet101": (32, {LNA: 67, LN: 37}, {"N101": 104, "N103": 67}),
    "ResNet152": (32, {LNA: 101, LN: 54}, {"N101": 155, "N103": 101}),
    "ResNet50V2": (32, {NAL: 49}, {"N101": 20, "N103": 49}),
    "ResNet101V2": (32, {NAL: 100}, {"N101": 37, "N103": 100}),
    "ResNet152V2": (32, {NAL: 151}, {"N101": 54, "N103": 151}),
    "DenseNet121": (32, {NAL: 120, LNA: 1}, {"N103": 120, "N201": 1}),
    "DenseNet169": (32, {NAL: 168, LNA: 1}, {"N103": 168, "N201": 1}),
    "DenseNet201": (32, {NAL: 200, LNA: 1}, {"N103": 200, "N201": 1}),
    "MobileNet": (32, {LNA: 27}, {}),
    "MobileNetV2": (32, {LNA: 35, LN: 17}, {"N103": 2}),
    "MobileNetV3Small": (32, {LNA: 23, LN: 11}, {"N103": 5, "N204": 1}),
    "MobileNetV3Large": (32, {LNA: 31, LN: 15}, {"N103": 8}),
    "InceptionV3": (75, {LNA: 94}, {}),
    "InceptionResNetV2": (75, {LNA: 204}, {}),
    "Xception": (71, {LNA: 24, LN: 16}, {"N103": 24}),
    "EfficientNetB0": (32, {LNA: 33, LN: 16}, {"N103": 2}),
    "EfficientNetB1": (32, {LNA: 46, LN: 23}, {}),
    "EfficientNetV2B0": (32, {LNA: 39, LN: 20}, {}),
    "EfficientNetV2B1": (32, {LNA: 48, LN: 25}, {}),
    "EfficientNetV2S": (32, {LNA: 72, LN: 38}, {}),
    "ConvNeXtTiny": (32, {LN: 19, "norm-linear": 3, "norm-linear-act": 1}, {}),
    "ConvNeXtSmall": (32, {LN: 37, "norm-linear": 3, "norm-linear-act": 1}, {}),
}
DEFAULT = (
    "VGG16 ResNet50 ResNet50V2 DenseNet121 MobileNet MobileNetV2 MobileNetV3Small InceptionV3 "
    "Xception EfficientNetB0 EfficientNetV2B0 ConvNeXtTiny"
).split()


def case(name):
    return pytest.param(name, marks=() if name in DEFAULT else pytest.mark.nightly)


@pytest.mark.parametrize("name", [case(name) for name in EXPECTED])
def test_application(name):
    side, summary, findings = EXPECTED[name]
    build = getattr(keras.applications, name)
    report = relucate.audit(build(weights=None, input_shape=(side, side, 3), classes=10))
    assert report.summary == summary
    codes = [finding.code for finding in report.findings]
    assert {code: codes.count(code) for code in sorted(set(codes))} == findings
    assert report.unknown == ()


def test_both_inceptions_have_94_norms_in_the_order_asked_for():
    before = relucate.keras.InceptionV3("before", weights=None, input_shape=(75, 75, 3))
    after = relucate.keras.InceptionV3("after", weights=None, input_shape=(75, 75, 3))
    assert relucate.audit(before).summary == {LNA: 94}
    report = relucate.audit(after)
    assert report.summary == {"linear-act-norm": 94}
    assert {finding.severity for finding in report.findings} == {"note"}
