"""Everything that is learnt or rendered: models and the parts they are combined from."""

from utils.registry import Registry

models = Registry("model", "models")
geometries = Registry("geometry", "models.fields")
textures = Registry("texture", "models.fields")
encodings = Registry("encoding", "models.fields", key="otype")
networks = Registry("network", "models.fields", key="otype")
occupancies = Registry("occupancy", "models.rendering")
opacities = Registry("opacity law", "models.rendering")
implicit_functions = Registry("implicit function", "models.fields")
ray_samplers = Registry("ray sampler", "models.rendering")
raymarchers = Registry("ray marcher", "models.rendering")
renderers = Registry("renderer", "models.rendering")
global_encoders = Registry("global encoder", "models.conditioning")
voxel_grids = Registry("voxel grid", "models.fields")
decoders = Registry("decoder", "models.fields")
