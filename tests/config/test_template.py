"""The template is made from the schema, and loads."""

from __future__ import annotations

import json
from pathlib import Path

from config_files import SAMPLE_CONFIG
from helpers import ROOT

from segnet.config.loading import load_config
from segnet.config.sections import TrainConfig
from segnet.config.template import config_template


def test_the_template_is_made_from_the_schema_and_loads_with_the_keys_that_have_no_default(tmp_path: Path) -> None:
    template = ROOT / "configs" / "template.yaml"
    assert template.read_text() == config_template()
    model = json.loads(SAMPLE_CONFIG.model.model_dump_json())
    overrides = [f"model.{name}={json.dumps(model[name])}" for name in ("encoder", "decoder")]
    found = load_config(template, [*overrides, f"data.root={tmp_path}", "data.classes=sample"])
    assert found.model == SAMPLE_CONFIG.model
    assert found.train == TrainConfig()
