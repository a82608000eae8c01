"""Data for training and testing: sources, subsets, augmentation and batch loading."""

from shortback.data.image_folder import load_image_folder as load_image_folder
from shortback.data.images import ArrayImages as ArrayImages
from shortback.data.images import ImageData as ImageData
from shortback.data.images import ImageSet as ImageSet
from shortback.data.images import Subset as Subset
from shortback.data.loader import BatchLoader as BatchLoader
from shortback.data.registry import DATA_KINDS as DATA_KINDS
from shortback.data.registry import load_data as load_data
from shortback.data.splits import limit_images as limit_images
from shortback.data.splits import split_validation as split_validation
from shortback.data.transforms import Augmentation as Augmentation
from shortback.data.transforms import EvalTransform as EvalTransform
from shortback.data.transforms import TrainTransform as TrainTransform
from shortback.data.transforms import batch_mixing as batch_mixing
from shortback.data.transforms import eval_transform as eval_transform
from shortback.data.transforms import normalize as normalize
from shortback.data.transforms import train_transform as train_transform
