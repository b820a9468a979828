"""The settings of a run. Edit them here, or override them for a single run: python run.py --batch_size 64

The comment of each is its line in `python run.py --help`. Any other name in this file is rejected as a typing error;
begin names of your own with an underscore.
"""

# The networks, each built by the module of its name in models/: its smallest img_size, and its values for the settings
# below that are None and depend on it.
MODEL_ARCHS = {
    "lenet5": {"min_img_size": 16, "img_size": 32, "weight_decay": 0.0},
    "mobilenetv2": {"min_img_size": 32, "img_size": 224, "weight_decay": 4e-5},
}

# Model
model_arch = "lenet5"  # network architecture
img_size = None  # images are resized to this width and height, in pixels; None: set by model_arch
numchannels = 3  # channels of the network's input: 3: colour; 1: grey
width = 1.0  # mobilenetv2: width multiplier (alpha)
strides = "paper"  # mobilenetv2: paper: total stride 32; small: total stride 8, for images of about 32 pixels
batch_norm_momentum = 0.9  # mobilenetv2: momentum of batch norm: moving = momentum * moving + (1 - momentum) * batch
pretrained = None  # initial weights: a checkpoint or a file from Keras, used where name and shape match; None: random
train_layers = "all"  # all: train every layer; head: freeze the backbone and train only the classifier

# Data
train_path = "data/cifar10png/train"  # training images, one folder per class; or a .zip or .tar of such folders
test_path = "data/cifar10png/test"  # test images, one folder per class
classes = None  # class folders to learn; None: all in train_path
total_class = None  # number of classes; None: the length of classes
valid_path = None  # validation images, one folder per class; None: held out from the training images
validation_size = 0.16  # fraction of the training images held out for validation
batch_size = 32  # images per training step
image_normalize_mean = [0.485, 0.456, 0.406]  # mean of each channel: x = (level / 255 - mean) / std
image_normalize_std = [0.229, 0.224, 0.225]  # standard deviation of each channel: x = (level / 255 - mean) / std
channel_order = "bgr"  # bgr: as OpenCV reads images; rgb: swapped before normalization
resize = "stretch"  # stretch: ignore the aspect ratio; crop: center crop; pad: borders in the mean colour
transparency = "drop"  # drop: ignore it, as the file's colours are; white, black: put images on that background
augment = "none"  # crop: random shifts; crop+flip: random shifts and horizontal flips
class_weights = "none"  # balanced: weight the loss of each training image by n / (classes * images of its class)
bad_images = "stop"  # stop: end at a corrupt image; skip: leave corrupt images out and count them
cache_mb = 1024  # megabytes of memory for the cache of decoded images
seed = 0  # random seed of the split, batch order, augmentation and initial weights

# Training
num_epoch = 1  # number of epochs to train for
lr = 0.01  # initial learning rate
decay = 0.95  # the learning rate is multiplied by this after every step_rate steps
step_rate = 1000  # steps between decays of the learning rate
epsilon = 0.01  # Adam's epsilon, added to the denominator of each update
weight_decay = None  # L2 regularization: adds weight_decay / 2 * sum(kernel ** 2) to the loss; None: set by model_arch
early_stopping = None  # patience: stop when the validation loss has not improved for this many epochs; None: never
device = "gpu"  # gpu: the GPU if TensorFlow finds one, else the CPU; cpu: the CPU
deterministic = False  # True: let a GPU give the same numbers each time, as far as TensorFlow can; slower
memory_check = "on"  # on: refuse to train if the estimate exceeds the available memory; off: train anyway
step_timeout = 120  # cluster: timeout of a training step, in seconds
cluster_timeout = 600  # cluster: how long to wait for other workers between steps, in seconds

# Output
checkpoint_minutes = 10  # minutes between checkpoints within an epoch; one is also written after each epoch
keep_runs = None  # number of earlier runs that keep their checkpoints; None: all
checkpoint_dir = None  # output folder for checkpoints; None: checkpoints/<model_arch>
weight_dir = None  # output folder for the exported graph; None: weights/<model_arch>
tensorboard_dir = None  # output folder for TensorBoard logs, one subfolder per run; None: graphs/<model_arch>


def model_defaults(model_arch):
    """img_size and weight_decay where they are None above. Lines of your own, such as these, may change them:

    if model_arch == "mobilenetv2":
        img_size = 160
    """
    img_size = MODEL_ARCHS[model_arch]["img_size"]
    weight_decay = MODEL_ARCHS[model_arch]["weight_decay"]
    return {"img_size": img_size, "weight_decay": weight_decay}
