"""The facts of a machine, with and without a compiler and optional packages."""

from __future__ import annotations

import json

import pytest
import torch

from segnet.commands import examining
from segnet.commands.doctor import main
from segnet.layers import native
from segnet.layers.native import Found
from segnet.system import devices


def test_the_text_is_short_and_names_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 40
    assert all(name in text for name in ("torch ", "device ", "precision ", "instructions ", "disk ", "native kernel "))
    assert "onnxruntime" in text


def test_the_document_has_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert document["packages"].keys() >= {"onnx", "openvino", "argcomplete"}


def test_what_is_missing_is_said_with_its_consequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(examining, "find_kernel", lambda: Found(None, "SEGNET_NATIVE=0 turns it off"))
    monkeypatch.setattr(examining, "driver_version", lambda: "NVIDIA 1")
    monkeypatch.setattr(examining, "_OPTIONAL", {"no-such-package": "nothing"})
    monkeypatch.setattr(examining, "usable_cores", lambda: 64)
    monkeypatch.setattr(examining, "memory_of", lambda device: devices.Memory(0.5, 8.0))
    facts = examining.examine()
    assert facts.machine["compiler"] == "no C++ compiler (no-such-compiler, from CXX)"
    assert facts.packages == {"no-such-package": "not installed"}
    said = examining.as_text(facts)
    for words in ("there is no GPU", "torch finds no device", "native kernel is not there", "1 of 64 cores", "0.5 GB of memory"):
        assert words in said
    assert native.find_compiler() == "no C++ compiler (no-such-compiler, from CXX)"
    assert devices.choose_device("auto").type == "cpu"


def test_a_machine_without_faults_says_so() -> None:
    facts = examining.Facts({"segnet": "1"}, {"device": "GPU"}, {}, [])
    assert examining.as_text(facts).endswith("nothing here will be slow")
