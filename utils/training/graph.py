"""The training graph: model, loss, optimizer, and gradient averaging in a cluster."""

from collections import namedtuple

from models import build, learned_variables
from src.errors import InputError, first_line
from src.tf1 import make_deterministic, tf
from utils.training.input_check import check_batch_norms
from utils.training.optimizer import build_learning_rate, build_optimizer

# Whether a worker requests that all stop after this step, or save: 0 or 1, and in a cluster the means over all workers.
Requests = namedtuple("Requests", "stop save")
# The tensors that the workers average in each step; `moving` are the moving statistics of batch norm.
Shared = namedtuple("Shared", "gradients moving cost accuracy requests")


class TrainGraph:
    """Builds everything that training needs into the default graph, and finalizes it.

    Args:
        config: settings.
        class_weights: weight of each class in the cost, float32 [total_class]; None: equal weights.
        steps: steps of an epoch.
        cluster: the Cluster or SingleProcess that trains.

    Attributes:
        model: the network that is trained.
        inference: (loss, accuracy) of the network for inference, with the same input and variables.
        variables: of the model: its weights and moving statistics.
        x, y_true, cross_entropy, cost, accuracy, optimizer, learning_rate, global_step.
        scalars: {tag: scalar that is logged besides loss and accuracy}.
        finite: whether no variable contains NaN or Inf.
        histograms: a summary of the weights.
        initializer, saver: of all variables.
        broadcast: broadcast(session) gives all workers the chief's variables.
    """

    def __init__(self, config, class_weights, steps, cluster):
        self._config, self._cluster = config, cluster
        if config.deterministic:
            make_deterministic()
        self._build_networks(class_weights)
        self.global_step = tf.train.get_or_create_global_step()
        self.learning_rate = build_learning_rate(config, self.global_step, steps)
        self.scalars = {"learning_rate": self.learning_rate}
        self._build_optimizer()
        variables = tf.global_variables()
        floats = [variable for variable in variables if variable.dtype.is_floating]
        self.finite = tf.reduce_all([tf.reduce_all(tf.is_finite(variable)) for variable in floats])
        self.histograms = weight_histograms()
        self.initializer = tf.global_variables_initializer()
        self.saver = tf.train.Saver()
        self.broadcast = cluster.broadcast_variables(variables)
        tf.get_default_graph().finalize()  # adding ops in a loop would leak memory

    def _build_networks(self, class_weights):
        config = self._config
        # With a frozen backbone, batch norm uses its moving statistics and does not update them, as in inference.
        self.model = build(config, is4Train=config.train_layers == "all")
        check_batch_norms(tf.get_default_graph(), config)
        self.variables = tf.global_variables()
        self._learned = learned_variables(config)
        self.x = self.model.getInput()
        self.y_true = tf.placeholder(tf.float32, [None, config.total_class], name="y_true")
        with tf.name_scope("inference"):
            eval_model = build(config, is4Train=False, image=self.x)
            self.inference = loss_and_accuracy(eval_model.getOutput(), self.y_true)[1:]
        self.cross_entropy, self.cost, self.accuracy = loss_and_accuracy(self.model.getOutput(), self.y_true)
        if class_weights is not None:
            self.cost = tf.reduce_mean(self.cross_entropy * tf.reduce_sum(self.y_true * class_weights, 1))

    def _build_optimizer(self):
        config = self._config
        if config.weight_decay:
            kernels = [variable for variable in self._learned if variable.op.name.endswith("kernel")]
            weight_loss = config.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            self.cost += weight_loss
            self.scalars["weight_loss"] = weight_loss

        optimizer = build_optimizer(config, self.learning_rate)
        gradients, learned = zip(*optimizer.compute_gradients(self.cost, self._learned))
        means, updates = self._average(gradients, tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        with tf.control_dependencies([self.cost]):  # else the cost could be computed from partly updated weights
            update = optimizer.apply_gradients(zip(means.gradients, learned), self.global_step)
        self.optimizer = tf.group(update, *updates)
        self._results = [means.cost, means.accuracy, means.requests]

    def _average(self, gradients, updates):
        """(a Shared of means over all workers, ops that update the moving statistics).

        Args:
            updates: ops that update the moving statistics with this worker's batch.
        """
        moving, self._requests = [], []  # a single process spares its requests the detour, some percent of a step
        if self._cluster.world_size > 1:
            self._requests = tf.placeholder(tf.float32, [len(Requests._fields)], name="requests")
            if updates:
                moving = [variable for variable in self.variables if variable not in tf.trainable_variables()]
        with tf.control_dependencies(updates):
            moved = [tf.identity(variable) for variable in moving]
        shared = Shared(gradients, moved, self.cost, self.accuracy, self._requests)
        means = self._cluster.all_reduce_mean(shared)
        return means, [tf.assign(variable, mean) for variable, mean in zip(moving, means.moving)] or updates

    def step(self, session, batch, requests, learning_rate=None):
        """One update of the weights.

        Args:
            requests: the Requests of this worker.
            learning_rate: that of this update; None: that of the schedule.

        Returns:
            (loss, accuracy, {tag: other scalars}, the mean Requests of all workers), computed before the update.

        Raises:
            InputError: the setting deterministic, and an operation that TensorFlow cannot compute so.
        """
        feed = {self.x: batch.images, self.y_true: batch.labels}
        if self._cluster.world_size > 1:
            feed[self._requests] = requests
        if learning_rate is not None:
            feed[self.learning_rate] = learning_rate
        try:
            _, scalars, loss, accuracy, means = session.run([self.optimizer, self.scalars, *self._results], feed)
        except tf.errors.OpError as error:
            if not self._config.deterministic or "determinis" not in first_line(error).lower():
                raise
            found = f"True, with an operation that cannot be ({first_line(error)})"
            raise InputError("setting deterministic", found, "False") from error
        requests = Requests(*means) if len(means) else requests
        return float(loss), float(accuracy), {tag: float(value) for tag, value in scalars.items()}, requests


def loss_and_accuracy(logits, labels):
    """(cross entropy of each image, its mean, accuracy) of logits and one-hot labels, both float32 [batch, classes]."""
    cross_entropy = tf.nn.softmax_cross_entropy_with_logits_v2(logits=logits, labels=labels)
    correct = tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1))
    return cross_entropy, tf.reduce_mean(cross_entropy), tf.reduce_mean(tf.cast(correct, tf.float32))


def weight_histograms():
    """A summary op: a histogram of the trainable variables of each layer or block."""
    scopes = {}
    for variable in tf.trainable_variables():
        scopes.setdefault(variable.op.name.split("/")[0], []).append(tf.reshape(variable, [-1]))
    return tf.summary.merge(
        [tf.summary.histogram(f"weights/{scope}", tf.concat(parts, 0)) for scope, parts in scopes.items()]
    )
