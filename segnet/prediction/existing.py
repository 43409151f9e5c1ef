"""The outputs that a folder holds already: which may be replaced, which are still valid, which are left from a killed command."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from segnet.data.georeference import WORLD_SUFFIX, world_file
from segnet.inference.predictor import Predictor
from segnet.prediction.inputs import Job, real_path
from segnet.prediction.manifest import Manifest, Record
from segnet.prediction.outputs import OUTPUTS, PLAIN, RESTORED_OUTPUTS, Options, output_path
from segnet.system.errors import config_error
from segnet.system.files import short_name

VERSION = 1  # part of the settings; raise it when the same picture and weights give other outputs than before


class ExistingOutputs:
    """The folder `out` and its manifest, seen by a command that writes `kinds` of outputs with `settings`.

    An output is valid when its manifest record is done and names the same picture digest and the same settings.
    """

    def __init__(self, out: Path, kinds: Sequence[str], settings: str) -> None:
        self.out = out
        self.kinds = kinds
        self.settings = settings  # from `settings_digest`
        self.manifest = Manifest(out)

    def targets(self, job: Job) -> list[Path]:
        """The output files of a job: one for each kind, then `world_target`."""
        return [*(output_path(job.output, kind) for kind in self.kinds), *filter(None, [self.world_target(job)])]

    def world_target(self, job: Job) -> Path | None:
        """The file beside the PNG into which the world file of the picture is copied; None where there is none."""
        has_png = "mask" in self.kinds or "restored" in self.kinds
        has_world = has_png and world_file(job.picture) is not None
        return job.output.with_name(job.output.name + WORLD_SUFFIX) if has_world else None

    def name_of(self, path: Path) -> str:
        """The name of a file in the manifest and in JSON outputs: relative to `out`, so that both may be moved together."""
        return os.path.relpath(real_path(path.parent) / path.name, real_path(self.out))

    def require_replaceable(self, jobs: Sequence[Job]) -> None:
        """Raise UserError (config) when a target exists that was not made from the same picture with the same settings."""
        existing = [(job, path) for job in jobs for path in self.targets(job) if os.path.exists(path)]
        kept = [(path, reason) for job, path in existing if (reason := self._reason_to_keep(job, path))]
        if kept:
            path, reason = kept[0]
            others = f", and {len(kept) - 1} more" if len(kept) > 1 else ""
            remedy = "add --overwrite, or choose another --out"
            raise config_error(path, f"exists already{reason}{others}", remedy)

    def _reason_to_keep(self, job: Job, target: Path) -> str:
        """The reason not to replace an existing `target`, as the end of a message; empty where `job` may replace it."""
        record = self.manifest.records.get(self.name_of(target))
        if record is None:
            return " and is not of this program"
        if record.settings != self.settings:
            return ", made with other weights or settings"
        if record.picture == self.name_of(job.picture):
            return ""
        same_content = record.done and job.picture.is_file()
        same_content = same_content and record.input == input_digest(job.picture, job.picture.read_bytes())
        return "" if same_content else f", made from {record.picture}"

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Make the folder and the manifest, and delete the temporary files that a killed command left of the same targets."""
        if self.manifest.unreadable:
            found = f"{self.manifest.unreadable} lines are not records of this program"
            print(f"warning: {self.manifest.path}: {found} – they are ignored", file=sys.stderr)
        self.manifest.prepare()
        names = {self.out: {self.manifest.path.name}}
        for target in (path for job in jobs for path in self.targets(job)):
            names.setdefault(target.parent, set()).add(target.name)
        for folder, own in names.items():
            beginnings = own | {short_name(name) for name in own}  # earlier versions did not shorten names
            for temporary in folder.glob(".*.[0-9]*.tmp"):
                if temporary.name[1:].rsplit(".", 2)[0] in beginnings:
                    temporary.unlink(missing_ok=True)

    def are_valid(self, job: Job, digest: str) -> bool:
        """True when all targets of `job` exist and were made from a picture with this digest, with the same settings."""
        return all(os.path.exists(path) and self._is_valid(path, digest) for path in self.targets(job))

    def _is_valid(self, path: Path, digest: str) -> bool:
        record = self.manifest.records.get(self.name_of(path))
        return record is not None and record.done and self._is_current(record, digest)

    def _is_current(self, record: Record, digest: str) -> bool:
        return record.input == digest and record.settings == self.settings

    def announce(self, job: Job, digest: str) -> Record:
        """Add the record of the outputs that are about to be written, and delete outputs of other kinds that are outdated.

        Those were made from other bytes of the picture, or with other settings: they would contradict the new outputs.
        """
        record = Record(self.name_of(job.picture), tuple(map(self.name_of, self.targets(job))), digest, self.settings)
        self.manifest.add(record)
        for kind in (kind for kind in (*OUTPUTS, *RESTORED_OUTPUTS) if kind not in self.kinds):
            path = output_path(job.output, kind)
            known = self.manifest.records.get(self.name_of(path))
            if known is not None and not self._is_current(known, digest):
                path.unlink(missing_ok=True)
        return record

    def finish(self, record: Record) -> None:
        """Mark the outputs of `record` as written."""
        self.manifest.add(record._replace(done=True))


def input_digest(picture: Path, content: bytes) -> str:
    """The SHA-256 of the content of a picture and of its world file."""
    world = world_file(picture)
    return hashlib.sha256(content + (world.read_bytes() if world else b"")).hexdigest()


def settings_digest(predictor: Predictor, options: Options = PLAIN) -> str:
    """32 hexadecimal digits that depend on everything but the picture that outputs depend on: weights, network, classes,
    inference settings, options, VERSION."""
    config = predictor.config
    content = hashlib.blake2b(digest_size=16)
    settings = config.model.model_dump_json(), config.inference.model_dump_json(), predictor.classes
    chosen = [f"{name} {value}" for name, value in options._asdict().items() if value != options._field_defaults[name]]
    for part in (VERSION, *settings, predictor.weights_digest, *chosen):
        content.update(f"{part}\0".encode())
    return content.hexdigest()


def jobs_digest(jobs: Sequence[Job]) -> int:
    """A number of 56 bits that depends on every picture and output path, to compare the jobs of all ranks."""
    content = "\0".join(f"{job.picture}\0{job.output}" for job in jobs).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest())
