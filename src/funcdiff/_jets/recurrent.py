"""Recurrent layers on a GPU by torch's own kernels: cuDNN's have no second derivative."""

from typing import Any

import torch

from funcdiff._jets.operations import FORMS


def _without_cudnn(func: Any, args: Any, kwargs: Any) -> Any:
    """The layer itself, with a graph that can be differentiated again, in evaluation mode as well."""
    if not args[0].is_cuda:
        return func(*args, **kwargs)
    with torch.backends.cudnn.flags(enabled=False):
        return func(*args, **kwargs)


FORMS.update(dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), _without_cudnn))
