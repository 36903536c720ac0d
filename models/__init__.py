"""Everything that is learnt or rendered: models and the parts they are combined from."""

from utils.registry import Registry

models = Registry("model", "models")
geometries = Registry("geometry", "models.fields")
textures = Registry("texture", "models.fields")
encodings = Registry("encoding", "models.fields", key="otype")
networks = Registry("network", "models.fields", key="otype")
occupancies = Registry("occupancy", "models.rendering")
