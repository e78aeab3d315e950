"""equivox: find out which modality a multimodal model neglects, and cure it during training.

>>> import torch
>>> import equivox as ev
>>> encoders = {"audio": torch.nn.Linear(8, 4), "video": torch.nn.Linear(6, 4)}
>>> model = ev.Multimodal(encoders, ev.Concat({"audio": 4, "video": 4}, 3))
>>> balancer = ev.Balancer(model, ev.OGMGE(alpha=0.3), task=ev.Classification())
>>> optimizer = balancer.attach(torch.optim.SGD(balancer.parameters(), lr=0.01))
>>> loader = [({"audio": torch.ones(5, 8), "video": torch.ones(5, 6)}, torch.arange(5) % 3)]
>>> for inputs, target in balancer.epoch(loader):
...     loss = balancer(inputs, target)
...     loss.backward()
...     optimizer.step()
...     optimizer.zero_grad()
"""

from equivox import data, functional, methods
from equivox.balancer import Balancer
from equivox.fusion import Attention, Concat, FiLM, Fused, Gated, SharedHead, Sum
from equivox.method import Batch, Chain, Method
from equivox.methods import *  # noqa: F403
from equivox.model import Multimodal, Output
from equivox.task import Classification, Dense, MultiLabel, Regression, Task

__version__ = "0.1.0.dev0"
