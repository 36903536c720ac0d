"""How a model is trained, evaluated and exported."""

from utils.registry import Registry

systems = Registry("system", "systems")
losses = Registry("loss", "systems")
exposures = Registry("exposure", "systems")
metrics = Registry("metric", "systems")
geometry_metrics = Registry("geometry metric", "systems")
