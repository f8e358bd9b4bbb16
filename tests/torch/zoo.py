"""Small models of the common families, written as public code writes them.

`MODELS` maps a name to (factory, input shape with the batch axis). A factory takes an order where
that makes sense for its family, so that the same net can be had with its norms elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

BEFORE, AFTER = "linear-norm-act", "linear-act-norm"
ORDERS = (BEFORE, AFTER, "norm-linear-act", "norm-act-linear", "linear-act")


def randomize(module: nn.Module, seed: int) -> nn.Module:
    """Give all parameters and statistics random values that no formula is blind to; return it."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(like, low, high):
        values = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        return (low + (high - low) * values).to(like.dtype)

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                low = 0.4 if name.rsplit(".", 1)[-1] == "weight" else -0.5
                parameter.copy_(drawn(parameter, low, 1.3))
            else:
                fan = max(parameter[0].numel(), 1)
                parameter.copy_(drawn(parameter, -1.0, 1.0) * (3.0 / fan) ** 0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(drawn(buffer, 0.3, 2.0))
            elif name.endswith("running_mean"):
                buffer.copy_(drawn(buffer, -0.6, 0.6))
    return module


def block(order, c_in, c_out, **conv):
    """A conv, a batch norm and a ReLU in the given order, as a list of modules."""
    tokens = order.split("-")
    before = "norm" in tokens and tokens.index("norm") < tokens.index("linear")
    made = {
        "linear": lambda: nn.Conv2d(c_in, c_out, **{"kernel_size": 3, "padding": 1} | conv),
        "norm": lambda: nn.BatchNorm2d(c_in if before else c_out),
        "act": lambda: nn.ReLU(inplace=True),
        "drop": lambda: nn.Dropout(0.2),
    }
    return [made[token]() for token in tokens]


def vgg(order=BEFORE):
    return nn.Sequential(
        nn.Sequential(
            *block(order, 3, 6),
            nn.MaxPool2d(2),
            *block(order, 6, 8),
            *block(order, 8, 8),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d((2, 2)),
        ),
        nn.Flatten(),
        nn.Sequential(nn.Linear(32, 12), nn.ReLU(True), nn.Dropout(), nn.Linear(12, 5)),
    )


class Basic(nn.Module):
    """ResNet's basic block: the second ReLU comes after the addition, in place."""

    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)  # registered first, called last: names decide nothing
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    def __init__(self, c, width, stride=1, groups=1):
        super().__init__()
        self.conv1 = nn.Conv2d(c, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 2, dilation=2, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)
        self.conv3 = nn.Conv2d(width, c, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu_(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + x)


class PreAct(nn.Module):
    """ResNet-v2: the shortcut starts after the first norm and activation where shapes change."""

    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, c_out, 3, stride, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(c_out), nn.Conv2d(c_out, c_out, 3, 1, 1)
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return out + shortcut


class Residual(nn.Module):
    """Stem, blocks, global pool, head; the pool is written as torchvision writes it."""

    def __init__(self, *blocks, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, 4)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.avgpool(self.layer1(x))
        return self.fc(torch.flatten(x, 1))


def resnet_basic():
    return Residual(Basic(6, 6), Basic(6, 8, 2), channels=8)


def resnet_bottleneck():
    return Residual(Bottleneck(6, 4), Bottleneck(6, 4, groups=2), channels=6)


def resnet_preact():
    return Residual(PreAct(6, 6), PreAct(6, 8, 2), nn.BatchNorm2d(8), nn.ReLU(), channels=8)


class OptionA(nn.Module):
    """CIFAR ResNet's shortcut without weights: every second pixel, zero channels added."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0)
        return F.relu(self.bn(self.conv(x)) + shortcut).mean(dim=[2, 3])


class DenseLayer(nn.Module):
    def __init__(self, c, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c), nn.Conv2d(c, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, growth, 3, 1, 1, bias=False)

    def forward(self, features):
        x = torch.cat(features, 1)
        x = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return F.dropout(x, p=0.2, training=self.training)


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(DenseLayer(6 + 4 * i, 4) for i in range(3))
        self.transition = nn.Sequential(
            OrderedDict(norm=nn.BatchNorm2d(18), relu=nn.ReLU(True), conv=nn.Conv2d(18, 8, 1))
        )
        self.pool = nn.AvgPool2d(2, 2)
        self.norm5, self.classifier = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x):
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        x = self.pool(self.transition(torch.cat(features, dim=1)))
        x = F.relu(self.norm5(x), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


class SqueezeExcite(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)
        self.activation, self.scale = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x):
        scale = self.scale(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return scale * x


class Inverted(nn.Module):
    def __init__(self, c_in, c_out, expand, stride, act, se=False):
        super().__init__()
        self.use_res_connect = stride == 1 and c_in == c_out
        layers = [*self._conv(c_in, expand, 1), act()]
        layers += [*self._conv(expand, expand, 3, stride, expand), act()]
        layers += [SqueezeExcite(expand)] if se else []
        self.conv = nn.Sequential(*layers, *self._conv(expand, c_out, 1))

    @staticmethod
    def _conv(c_in, c_out, k, stride=1, groups=1):
        conv = nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=groups, bias=False)
        return conv, nn.BatchNorm2d(c_out)

    def forward(self, x):
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


def mobilenet_v2():
    relu6 = partial(nn.ReLU6, inplace=True)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(True),
        Inverted(8, 8, 16, 1, relu6),
        Inverted(8, 10, 24, 2, relu6),
    )


def mobilenet_v3():
    return nn.Sequential(
        Inverted(3, 6, 8, 2, nn.Hardswish, se=True),
        Inverted(6, 6, 12, 1, partial(nn.ReLU, inplace=True), se=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(6, 8),
        nn.Hardswish(inplace=True),
        nn.Dropout(0.2, inplace=True),
        nn.Linear(8, 3),
    )


class ConvBN(nn.Module):
    """torchvision's BasicConv2d."""

    def __init__(self, c_in, c_out, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(c_out, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = ConvBN(3, 4, kernel_size=1)
        self.b1 = ConvBN(3, 4, kernel_size=(1, 3), padding=(0, 1))
        self.b2 = ConvBN(4, 5, kernel_size=(3, 1), padding=(1, 0))
        self.pool = ConvBN(3, 3, kernel_size=1)
        self.fc = nn.Linear(12, 3)

    def _forward(self, x):
        pooled = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        return [self.a(x), self.b2(self.b1(x)), self.pool(pooled)]

    def forward(self, x):
        if self.training:
            raise AssertionError("only read in eval mode")
        x = torch.cat(self._forward(x), 1)
        x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
        x = F.dropout(F.adaptive_avg_pool2d(x, (1, 1)), training=self.training)
        return self.fc(torch.flatten(x, 1))


def channel_shuffle(x, groups):
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, channels, height, width)


class Shuffle(nn.Module):
    def __init__(self, c=8):
        super().__init__()
        h = c // 2
        self.branch2 = nn.Sequential(
            nn.Conv2d(h, h, 1, bias=False),
            nn.BatchNorm2d(h),
            nn.ReLU(inplace=True),
            nn.Conv2d(h, h, 3, 1, 1, groups=h, bias=False),
            nn.BatchNorm2d(h),
        )

    def forward(self, x):
        x1, x2 = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((x1, self.branch2(x2)), dim=1), 2)


class BatchNormAct2d(nn.BatchNorm2d):
    """timm's: a batch norm by its type, with dropout and activation inside."""

    def __init__(self, c, eps=1e-5, momentum=0.1, act=nn.ReLU):
        super().__init__(c, eps=eps, momentum=momentum)
        self.drop = nn.Identity()
        self.act = act(inplace=True)

    def forward(self, x):
        torch._assert(x.ndim == 4, "expected 4D input")
        factor = 0.0 if self.momentum is None else self.momentum
        bn_training = self.training or (self.running_mean is None and self.running_var is None)
        x = F.batch_norm(
            x,
            self.running_mean if not self.training or self.track_running_stats else None,
            self.running_var if not self.training or self.track_running_stats else None,
            self.weight,
            self.bias,
            bn_training,
            factor,
            self.eps,
        )
        return self.act(self.drop(x))


class EfficientBlock(nn.Module):
    def __init__(self, c, hidden):
        super().__init__()
        self.conv_pw, self.bn1 = (
            nn.Conv2d(c, hidden, 1, bias=False),
            BatchNormAct2d(hidden, act=nn.SiLU),
        )
        self.conv_dw = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, bias=False)
        self.bn2 = BatchNormAct2d(hidden, eps=1e-3, momentum=0.01, act=nn.SiLU)
        self.se_reduce, self.se_expand = nn.Conv2d(hidden, 2, 1), nn.Conv2d(2, hidden, 1)
        self.act1 = nn.SiLU(inplace=True)
        self.conv_pwl, self.bn3 = nn.Conv2d(hidden, c, 1, bias=False), nn.BatchNorm2d(c)

    def forward(self, x):
        shortcut = x
        x = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        x_se = x.mean((2, 3), keepdim=True)
        x = x * self.se_expand(self.act1(self.se_reduce(x_se))).sigmoid()
        return self.bn3(self.conv_pwl(x)) + shortcut


class DoubleConv(nn.Module):
    def __init__(self, c_in, c_out, order):
        super().__init__()
        self.double_conv = nn.Sequential(*block(order, c_in, c_out), *block(order, c_out, c_out))

    def forward(self, x):
        return self.double_conv(x)


class UNet(nn.Module):
    """Pads the upsampled images to the skipped ones' size, as public U-Nets do."""

    def __init__(self, order=BEFORE):
        super().__init__()
        self.inc = DoubleConv(2, 4, order)
        self.down = nn.Sequential(nn.MaxPool2d(2), DoubleConv(4, 6, order))
        self.up = nn.ConvTranspose2d(6, 4, kernel_size=2, stride=2)
        self.conv = DoubleConv(8, 4, order)
        self.outc = nn.Conv2d(4, 1, kernel_size=1)

    def forward(self, x):
        x1 = self.inc(x)
        x2 = self.up(self.down(x1))
        dy, dx = x1.size()[2] - x2.size()[2], x1.size()[3] - x2.size()[3]
        x2 = F.pad(x2, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return torch.sigmoid(self.outc(self.conv(torch.cat([x1, x2], dim=1))))


class ConvNeXt(nn.Module):
    def __init__(self, c=6):
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c)
        self.gamma = nn.Parameter(1e-6 * torch.ones(c))

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1, self.act, self.fc2 = (
            nn.Linear(c, 2 * c),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * c, c),
        )
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class ViT(nn.Module):
    """Patches, class token, positions, norm-first blocks with the attention written out."""

    def __init__(self, c=8, patch=4, tokens=5):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, c, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, c))
        self.norm1, self.norm2, self.norm = nn.LayerNorm(c), nn.LayerNorm(c), nn.LayerNorm(c)
        self.qkv, self.proj, self.mlp = nn.Linear(c, 3 * c), nn.Linear(c, c), Mlp(c)
        self.heads = 2
        self.ls1 = nn.Parameter(torch.ones(c))
        self.head = nn.Linear(c, 3)

    def attend(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(0, 2, 3, 1, 4)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        weights = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        x = x + self.ls1 * self.attend(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm(x)[:, 0])


class MLPNet(nn.Module):
    def __init__(self, order=BEFORE):
        super().__init__()
        made = {
            "linear": lambda: nn.Linear(6, 6),
            "norm": lambda: nn.BatchNorm1d(6),
            "act": nn.Tanh,
        }
        layers = [made[token]() for token in order.split("-")]
        self.body = nn.Sequential(*layers, *(made[token]() for token in order.split("-")))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return F.log_softmax(self.head(self.body(x)), dim=1)


class IntOfShape(nn.Module):
    """int() of a shape: torch.fx stops here."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 2)

    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        x = F.avg_pool2d(x, int(x.shape[2]) // 2)
        return self.fc(x.view(int(x.shape[0]), -1))


class MadeInside(nn.Module):
    """Modules that are made at every call."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return nn.Flatten()(nn.MaxPool2d(2)(nn.ReLU()(self.bn(self.conv(x)))))


class ShapeDecides(nn.Module):
    """Control flow on a shape, extra keyword arguments, a reused block."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ELU())

    def forward(self, x, **options):
        while x.shape[-1] > 4:
            x = F.max_pool2d(self.block(x), 2, **options)
        return x


class Reused(nn.Module):
    """One block and one activation called at several places; two consumers of one norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU()

    def forward(self, x):
        y = self.act(self.bn(self.conv(x)))
        z = self.bn(self.conv(y))
        return self.act(z) + z


MODELS = {
    "vgg": (vgg, (2, 3, 8, 8)),
    "resnet_basic": (resnet_basic, (2, 3, 17, 16)),
    "resnet_bottleneck": (resnet_bottleneck, (2, 3, 16, 18)),
    "resnet_preact": (resnet_preact, (2, 3, 16, 16)),
    "option_a": (OptionA, (2, 4, 6, 6)),
    "densenet": (DenseNet, (2, 3, 8, 6)),
    "mobilenet_v2": (mobilenet_v2, (2, 3, 8, 8)),
    "mobilenet_v3": (mobilenet_v3, (2, 3, 8, 8)),
    "inception": (Inception, (2, 3, 6, 7)),
    "shufflenet": (Shuffle, (2, 8, 5, 4)),
    "efficientnet": (partial(EfficientBlock, 4, 8), (2, 4, 5, 5)),
    "unet": (UNet, (2, 2, 9, 10)),
    "convnext": (ConvNeXt, (2, 6, 8, 7)),
    "vit": (ViT, (2, 3, 8, 8)),
    "mlp": (MLPNet, (3, 6)),
    "reused": (Reused, (2, 4, 6, 5)),
    "int_of_shape": (IntOfShape, (2, 3, 6, 6)),
    "made_inside": (MadeInside, (2, 3, 6, 6)),
    "shape_decides": (ShapeDecides, (2, 3, 16, 16)),
}
ORDERED = {"vgg": vgg, "unet": UNet, "mlp": MLPNet}  # factories that take an order
EXPORT_ONLY = {"int_of_shape", "made_inside", "shape_decides"}
