"""Trainer: the graph, the session and the training loop.

    T = Trainer()
    T.optimize(num_epoch=1)
    T.export()
"""
import math
import os
import time
from collections import OrderedDict

import numpy as np
from tqdm import tqdm

from convert.freeze import contents, freeze
from dataset import read_train_sets
from models import build
from src.errors import InputError
from src.settings import check, settings
from src.tf1 import open_session, tf
from utils.board import Board, new_run_folder
from utils.checkpoints import assign, best, prefixes_in, read_record, read_weights, writable, write_record
from utils.files import make_writable
from utils.pictures import denormalized, draw_curves, draw_grid, plain

KEPT_CHECKPOINTS = 10  # beside the best
EVALUATION_BATCH = 100
SHOWN = 32  # images in train_batch.png


class Trainer(object):
    """Learns to classify the images under config.train_path. Owns its graph and its session.

    Args:
        given: settings that differ from src/config.py for this Trainer, such as Trainer(batch_size=64).

    Raises:
        InputError: a wrong setting, a data set that cannot be used, a folder that cannot be written to.
    """

    def __init__(self, **given):
        self.config = config = settings(**given)
        self.data = read_train_sets(config)
        self.train_batch_size = config.batch_size
        if self.train_batch_size > self.data.train.num_examples:
            raise InputError("setting batch_size: found %d, expected at most %d, the number of training images"
                             % (self.train_batch_size, self.data.train.num_examples))
        for setting in ("checkpoint_dir", "weight_dir", "tensorboard_dir"):
            make_writable(setting, getattr(config, setting))
        prefixes_in(config.checkpoint_dir)  # a damaged list is to be found now, not after the first epoch
        self.epoch = 0  # epochs done
        self.step = 0  # steps done
        self.val_loss = self.val_acc = None  # of the weights as they are now, if they were validated
        self.history = []  # for each epoch: epoch, loss, acc, val_loss, val_acc
        self.saved_step = 0
        self.run_folder = None
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(config.seed)
            self._build()
            self.saver = tf.train.Saver(max_to_keep=KEPT_CHECKPOINTS)
            self.session = open_session(config.device)
            if config.device == "gpu" and not any(found.device_type == "GPU" for found in self.session.list_devices()):
                print("TensorFlow %s finds no GPU here and uses the CPU" % tf.__version__, flush=True)
            self.session.run(tf.global_variables_initializer())
            if config.pretrained:
                self._load_pretrained()

    def _build(self):
        config = self.config
        self.model = build(config, is4Train=True)
        self.variables = tf.global_variables()  # those of the model: what is learned and the moving statistics
        self.x = self.model.getInput()
        self.y_true = tf.placeholder(tf.float32, [None, config.total_class], name="y_true")
        with tf.name_scope("inference"):  # the twin shares the variables; validation asks it
            twin = build(config, is4Train=False, image=self.x)
            self.inference = classify(twin.getOutput(), self.y_true)[1:]

        self.cross_entropy, self.cost, self.accuracy = classify(self.model.getOutput(), self.y_true)
        self.lr, self.step_rate, self.decay = config.lr, config.step_rate, config.decay
        self.global_step = tf.train.get_or_create_global_step()
        self.learning_rate = tf.train.exponential_decay(
            self.lr, self.global_step, self.step_rate, self.decay, staircase=True)
        self.logged = {"learning_rate": self.learning_rate}
        if config.weight_decay:
            kernels = [variable for variable in self.variables if variable.op.name.endswith("kernel")]
            self.weight_loss = config.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            self.cost += self.weight_loss
            self.logged["weight_loss"] = self.weight_loss

        adam = tf.train.AdamOptimizer(learning_rate=self.learning_rate, epsilon=config.epsilon)
        gradients = adam.compute_gradients(self.cost)
        with tf.control_dependencies([self.cost]):  # or the cost could be that of weights half updated
            update = adam.apply_gradients(gradients, self.global_step)
        self.optimizer = tf.group(update, *tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        self.histograms = tf.summary.merge([tf.summary.histogram("weights/" + variable.op.name, variable)
                                            for variable in tf.trainable_variables()])

    def optimize(self, num_epoch=None):
        """Train for `num_epoch` more epochs (config.num_epoch if not given), validating and saving after each.

        If it is stopped by Ctrl-C, by SystemExit or by a broken image, what was learned so far is saved first.
        """
        if num_epoch is None:
            num_epoch = self.config.num_epoch
        check("num_epoch", num_epoch)
        last_epoch = self.epoch + num_epoch
        self.run_folder = self.run_folder or new_run_folder(self.config.tensorboard_dir)
        try:
            with Board(self.run_folder, self.graph, self.step) as board:
                board.settings(self.step, vars(self.config))
                while self.epoch < last_epoch and not self._out_of_patience():
                    self._train_epoch(board, "epoch %d/%d" % (self.epoch + 1, last_epoch))
        except (KeyboardInterrupt, SystemExit, InputError):
            self.save()
            raise
        finally:
            if self.history:
                draw_curves(os.path.join(self.run_folder, "curves.png"), self.history)

    def _out_of_patience(self):
        """Whether the validation loss has not fallen for config.early_stopping epochs."""
        patience = self.config.early_stopping
        losses = [entry["val_loss"] for entry in self.history]
        if patience is None or len(losses) - np.argmin(losses + [np.inf]) <= patience:
            return False
        print("stopped early: validation loss has not fallen for %d epochs" % patience, flush=True)
        return True

    def _train_epoch(self, board, title):
        start = time.time()
        self.val_loss = self.val_acc = None
        losses, accuracies = [], []
        steps = self.data.train.num_examples // self.train_batch_size
        with tqdm(total=steps * self.train_batch_size, desc=title, unit="images", disable=None, leave=False,
                  dynamic_ncols=True) as bar:
            for images, labels, _, names in self.data.train.epoch(self.train_batch_size):
                if self.step == 0:
                    self._draw_batch(images, names)
                _, loss, accuracy, scalars = self.session.run(
                    [self.optimizer, self.cost, self.accuracy, self.logged], {self.x: images, self.y_true: labels})
                self.step += 1
                self._check_finite(loss)
                board.training(self.step, train_loss=loss, train_acc=accuracy, **scalars)
                losses.append(loss)
                accuracies.append(accuracy)
                bar.set_postfix_str("loss %.3f acc %.3f" % (loss, accuracy), refresh=False)
                bar.update(self.train_batch_size)
        images_per_second = steps * self.train_batch_size / (time.time() - start)

        self.val_loss, self.val_acc = self.evaluate(self.data.valid)
        self._check_finite(self.val_loss)
        self.epoch += 1
        self.history.append({"epoch": self.epoch, "loss": float(np.mean(losses)), "acc": float(np.mean(accuracies)),
                             "val_loss": self.val_loss, "val_acc": self.val_acc})
        board.histograms(self.step, self.session.run(self.histograms))
        board.validation(self.step, val_loss=self.val_loss, val_acc=self.val_acc, images_per_second=images_per_second)
        self.save()
        print("%s: loss %.4f, accuracy %.4f; validation loss %.4f, accuracy %.4f; %d images/s, %.1f s"
              % (title, np.mean(losses), np.mean(accuracies), self.val_loss, self.val_acc,
                 images_per_second, time.time() - start), flush=True)

    def _check_finite(self, loss):
        if not math.isfinite(loss):
            raise FloatingPointError("loss: found %s at step %d, expected a number; setting lr: found %s, try a "
                                     "smaller one" % (loss, self.step, self.lr))

    def _draw_batch(self, images, names):
        """train_batch.png: what the network is fed first, so that a mistake in the data is seen early."""
        draw_grid(os.path.join(self.run_folder, "train_batch.png"), denormalized(images[:SHOWN], self.config),
                  [plain(name, 16) for name in names[:SHOWN]], "the first batch")

    def evaluate(self, data):
        """Mean cross entropy and accuracy of the inference network over every image of a DataSet, each once."""
        results, sizes = [], []
        for images, labels, _, _ in data.batches(EVALUATION_BATCH):
            results.append(self.session.run(self.inference, {self.x: images, self.y_true: labels}))
            sizes.append(len(images))
        loss, accuracy = np.average(results, axis=0, weights=sizes)
        return float(loss), float(accuracy)

    def save(self):
        """Write a checkpoint, and the record of the run beside it, if anything was learned since the last."""
        self.step = int(self.session.run(self.global_step))  # Ctrl-C may come after a step, but before it is counted
        if self.step == self.saved_step:
            return
        folder, name = self.config.checkpoint_dir, "%s-%d" % (self.config.model_arch, self.step)
        held = best(folder, self.run_folder)  # TensorFlow deletes the oldest of those that it is told of
        self.saver.recover_last_checkpoints([prefix for prefix in prefixes_in(folder) if prefix != held])
        with writable("checkpoint_dir", folder):
            self.saver.save(self.session, os.path.join(folder, name), write_meta_graph=False)
        self.saved_step = self.step
        kept = [os.path.basename(prefix) for prefix in prefixes_in(folder)]
        record = OrderedDict((key, entry) for key, entry in read_record(folder).items() if key in kept and key != name)
        record[name] = {"settings": vars(self.config), "run_folder": self.run_folder, "epoch": self.epoch,
                        "global_step": self.step, "val_loss": self.val_loss, "val_acc": self.val_acc}
        write_record(folder, record)

    def export(self, last=False):
        """Freeze the weights of the best epoch to weights/<model_arch>/; returns the path of the .pb file.

        Args:
            last: freeze the weights as they are now instead, as if no epoch was validated.
        """
        prefix = None if last else best(self.config.checkpoint_dir, self.run_folder)
        if prefix and self.history:
            return freeze(*contents(prefix))
        weights = self.session.run({variable.op.name: variable for variable in self.variables})
        return freeze(self.config, weights,
                      {"val_acc": self.val_acc, "run_folder": self.run_folder, "checkpoint": None})

    def _load_pretrained(self):
        """Take over what config.pretrained has for variables of the same name and shape; say what it has not."""
        weights = read_weights("setting pretrained", self.config.pretrained)
        fitting, others = [], []
        for variable in self.variables:
            fits = np.shape(weights.get(variable.op.name)) == tuple(variable.shape.as_list())
            (fitting if fits else others).append(variable)
        if not fitting:
            raise InputError("setting pretrained: found nothing in %s that fits, expected weights of a %s"
                             % (self.config.pretrained, self.config.model_arch))
        assign(self.session, fitting, weights)
        print("weights of %s: took %d of %d variables%s" % (
            self.config.pretrained, len(fitting), len(self.variables),
            ", all but " + ", ".join(variable.op.name for variable in others) if others else ""), flush=True)

    def close(self):
        self.session.close()


def classify(logits, labels):
    """(cross entropy of each image, its mean, accuracy) of logits against one-hot labels, both [batch, classes]."""
    cross_entropy = tf.nn.softmax_cross_entropy_with_logits_v2(logits=logits, labels=labels)
    correct = tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1))
    return cross_entropy, tf.reduce_mean(cross_entropy), tf.reduce_mean(tf.cast(correct, tf.float32))
