"""The settings of a run.

Edit them here, or give one for a single run by its name: python run.py --batch_size 64
The comment behind a setting is its line in `python run.py --help`.
"""
import os

MODEL_ARCHS = {"lenet5": 16, "mobilenetv2": 32}  # the graph builders there are, and the least img_size of each

# Model
model_arch = "lenet5"  # the network to train
numchannels = 3  # colour channels of the network's input
width = 1.0  # mobilenetv2: factor on the depth of every layer
batch_norm_momentum = 0.9  # mobilenetv2: share of the moving mean and variance that stays at each step
pretrained = None  # start from these weights, where name and shape agree

# Data
train_path = "data/cifar10png/train"  # training images: one folder per class
test_path = "data/cifar10png/test"  # test images, laid out the same
validation_size = .16  # fraction of the training images held out for validation
batch_size = 32  # images in one training step
image_normalize_mean = [0.485, 0.456, 0.406]  # subtracted from each channel, scaled to 0..1 before
image_normalize_std = [0.229, 0.224, 0.225]  # each channel is then divided by this
channel_order = "bgr"  # channels as OpenCV reads them (bgr), or swapped before normalizing (rgb)
augment = "none"  # change training images anew each epoch: crop moves them, crop+flip also mirrors every second
cache_mb = 1024  # megabytes of decoded images kept in memory; beyond that they are read anew each epoch
seed = 0  # decides the split, the order of the batches and the first weights

# Training: Adam, its learning rate falling in steps
num_epoch = 1  # times to go through the training images
early_stopping = None  # stop when the validation loss has not fallen for so many epochs; None: never
lr = 0.01  # learning rate of the first step
decay = 0.95  # factor on the learning rate each time step_rate steps are done
step_rate = 1000  # steps after which decay is applied
epsilon = 0.01  # Adam's epsilon
device = "gpu"  # gpu: the GPU where TensorFlow finds one, else the CPU; cpu: the CPU


def class_folders(path):
    """Names of the folders in `path`, in plain string order; [] if it is no folder."""
    if not isinstance(path, str) or not os.path.isdir(path):
        return []
    return sorted(entry.name for entry in os.scandir(path)
                  if entry.is_dir() and not entry.name.startswith("."))


def derive(model_arch, train_path, classes=None):
    """The settings that follow from others, unless they are set by hand or given for the run."""
    if model_arch == "mobilenetv2":
        img_size = 224  # images are resized to this width and height, in pixels
        weight_decay = 4e-5  # factor on half the sum of the squared kernels, added to the loss
    if model_arch == "lenet5":
        img_size = 32
        weight_decay = 0.0

    checkpoint_dir = "checkpoints/%s" % model_arch  # where training saves its weights
    weight_dir = "weights/%s" % model_arch  # where the exported graph goes
    tensorboard_dir = "graphs/%s" % model_arch  # TensorBoard logs, one folder a run

    classes = classes or class_folders(train_path)  # class folders to learn, all if not given
    total_class = len(classes)  # number of classes
    return locals()


derived = derive(model_arch, train_path)
globals().update(derived)

# To set one of those by hand, put it below this line, such as: img_size = 96
