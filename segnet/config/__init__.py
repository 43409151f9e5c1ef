"""The configuration: typed sections, read from YAML files through one door, `load_config`."""

from segnet.config.loading import config_schema, config_to_yaml, dump_config, load_config, override_config
from segnet.config.sections import Config

__all__ = ["Config", "config_schema", "config_to_yaml", "dump_config", "load_config", "override_config"]
