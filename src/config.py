"""The settings of a run. Edit them here, or give one for a single run by its name: python run.py --batch_size 64

`python run.py --help` explains each of them. Any other name in this file is taken for a typing error; begin names of
your own with an underscore.
"""

MODEL_ARCHS = {"lenet5": 16, "mobilenetv2": 32}  # the networks, and the smallest img_size of each

# Model
model_arch = "lenet5"
img_size = None  # None: see model_defaults below
numchannels = 3
width = 1.0
strides = "paper"
batch_norm_momentum = 0.9
pretrained = None
train_layers = "all"

# Data
train_path = "data/cifar10png/train"
test_path = "data/cifar10png/test"
classes = None  # None: all folders in train_path
total_class = None  # None: the number of classes
valid_path = None
validation_size = 0.16
batch_size = 32
image_normalize_mean = [0.485, 0.456, 0.406]
image_normalize_std = [0.229, 0.224, 0.225]
channel_order = "bgr"
resize = "stretch"
augment = "none"
class_weights = "none"
bad_images = "stop"
cache_mb = 1024
seed = 0

# Training
num_epoch = 1
lr = 0.01
decay = 0.95
step_rate = 1000
epsilon = 0.01
weight_decay = None  # None: see model_defaults below
early_stopping = None
device = "gpu"
memory_check = "on"
step_timeout = 120
cluster_timeout = 600

# Output
checkpoint_minutes = 10
keep_runs = None
# None: checkpoints/lenet5, weights/lenet5 and graphs/lenet5 for lenet5
checkpoint_dir = None
weight_dir = None
tensorboard_dir = None


def model_defaults(model_arch):
    """The settings above that follow from the network where they are None."""
    if model_arch == "mobilenetv2":
        img_size = 224
        weight_decay = 4e-5
    elif model_arch == "lenet5":
        img_size = 32
        weight_decay = 0.0
    else:
        return {}
    return {"img_size": img_size, "weight_decay": weight_decay}
