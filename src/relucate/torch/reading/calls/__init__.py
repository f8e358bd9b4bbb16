"""How PyTorch's functions and modules are read, in one file per kind.

`FUNCTIONS` has the handler of each canonical name (`targets.canonical`), `MODULES` that of each
class of torch.nn.
"""

from . import axes, elements, elementwise, joins, linear, norms, pools, resizing, tensors
from .handler import Handler

FUNCTIONS: dict[str, Handler] = {
    **tensors.FUNCTIONS,
    **axes.FUNCTIONS,
    **joins.FUNCTIONS,
    **elements.FUNCTIONS,
    **elementwise.FUNCTIONS,
    **pools.FUNCTIONS,
    **resizing.FUNCTIONS,
    **linear.FUNCTIONS,
    **norms.FUNCTIONS,
}
MODULES: dict[type, Handler] = {
    **tensors.MODULES,
    **axes.MODULES,
    **elementwise.MODULES,
    **pools.MODULES,
    **resizing.MODULES,
    **linear.MODULES,
    **norms.MODULES,
}
