"""The commands: the arguments of each, and what it does. Reading the arguments does not import torch; `main` does afterwards."""
