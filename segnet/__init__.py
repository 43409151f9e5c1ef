"""Encoder-decoder semantic segmentation: train, evaluate, predict. The recipes are in `configs/`.

Read from the top: a file imports only files that this list names before it.

classes         the class tables: names, colours, the ignored id
system/         for every command: version · invocation · errors · streams · terminal · digests · distributed · files ·
                devices · processes · command_line
layers/         what the project exists for: pooling · native · winograd · convolution · deconvolution
config/         every setting, typed and checked: named · yaml_files · key_text · sections · advice · renamed · validation ·
                architectures · data_folder · loading · arguments · template · key_page
losses          what training minimises: sums that add up over the parts of a batch and over ranks
metrics/        numbers from counts: confusion · boundary_f1 · boundary_iou · calibration · psnr · ssim
regions/        connected regions of a mask and their outlines: labelling · cleanup · rims · filling ·
                simplification · shapes
visualization   arrays drawn from images and masks; no files
models/         the networks: compilation · recomputation · pretrained · field_of_view · encoder_decoder ·
                native_blocks · folding · initialization · inspection
data/           from files to batches: layout · remedies · image_headers · deep_pictures · scaling · images ·
                mask_files · georeference · picture_encoding · map_coordinates · palettes · rle · cache · pasting ·
                transforms · colors · sampler · workers · listing · split_forms · split_lists · sample_files ·
                label_faults · twins · checking · check_report · dataset · donors · loader · statistics
preparation/    other people's data made ours: downloads · masks · toys · paint · scenes · archives · sample · plan ·
                clean_pictures · public_sets · unpacking · division · written_lists · splitting · mask_values
importing/      labels of other tools made masks: files · class_file · source · painting · polygons · label_masks · coco ·
                labelme · roboflow · ultralytics · label_studio · supervisely · cityscapes · ade20k · voc · cvat · cvat_images ·
                folder_pairs · recognition · writing · report · recipe
vectors/        polygons as files of other tools: archive · geojson · coco · labelme · cvat · yolo · formats
runs/           what a run folder holds: checkpoint · transfer · environment · observers · log · folder
tasks/          what a network is for: task · segmentation_score · segmentation · noise · denoising_data ·
                denoising_score · denoising · choice
inference/      from an image to an answer, in memory: exported · ensemble · precision · windows · loaded_model ·
                answers · predictor
evaluation/     from a split to a score: charts · markup · split_loss · scoring · weak_classes · gallery · shown ·
                suspects · suspect_gallery · resampling · results · learning_curves · report · restoration_results ·
                restoration_report · writers · comparison · restoration_comparison · temperature · cleanup_tuning ·
                model_card
prediction/     from files to files: manifest · inputs · areas · ranking · outputs · existing · summary · pipeline ·
                collected · video
export          a network as a file for other programs
web/            a page to try a network, its server, and the page as a folder: page · answers · queue · requests ·
                connections · server · onnxruntime_web · folder
training/       the training loop: data · precision · schedule · optimizer · step · overfitting · reporting · resuming ·
                starting · loop
benchmarks/     what is claimed, measured: timing · plain · memory · network · data · gpu · recipes
planning/       from measured facts to a configuration: objects · survey · machine · choices · planner · writing · review
commands/       the arguments of each command, and what it does: choices · parsers · sources · train · evaluating · evaluate ·
                predicting_video · predicting · predict · split · check · convert · import_labels · prepare · plan · show ·
                export · serve · compare · measuring · benchmark · results · examining · doctor
__main__        the command segnet
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from segnet.system.version import VERSION as __version__

if TYPE_CHECKING:
    from segnet.config.loading import load_config
    from segnet.evaluation.scoring import evaluate
    from segnet.inference.loaded_model import load_model
    from segnet.inference.predictor import Predictor
    from segnet.models.initialization import build_model
    from segnet.system.errors import UserError

__all__ = ["Predictor", "UserError", "__version__", "build_model", "evaluate", "load_config", "load_model"]
_FILES = {
    "Predictor": "segnet.inference.predictor",
    "UserError": "segnet.system.errors",
    "build_model": "segnet.models.initialization",
    "evaluate": "segnet.evaluation.scoring",
    "load_config": "segnet.config.loading",
    "load_model": "segnet.inference.loaded_model",
}


def __getattr__(name: str) -> object:
    """A name of `__all__`, imported when it is asked for: what needs no torch, such as the help of a command, starts at once."""
    if name not in _FILES:
        raise AttributeError(f"module 'segnet' has no attribute '{name}'")
    return getattr(import_module(_FILES[name]), name)
