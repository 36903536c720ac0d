"""Readers of data sets: a folder in, `Views` out."""

from utils.registry import Registry

datasets = Registry("data set", "datasets")
