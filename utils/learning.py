"""What a training learns and how: the graph of the network, its cost, and its optimizer."""

from models import build, classify, learned_variables
from src.tf1 import tf
from utils.input_check import check_batch_norms
from utils.tensorboard import weight_histograms


class LearningGraph:
    """Builds all that training needs into the default graph.

    Args:
        config: settings.
        class_weights: what an image of each class counts for in the cost, float32 [total_class]; None: all the same.
        cluster: the Cluster that trains.

    Attributes:
        model: the network that learns.
        inference: loss and accuracy of a network for inference on the same input, which shares the variables.
        variables: those of the model: what can be learned and the moving statistics.
        x, y_true, cross_entropy, cost, accuracy, optimizer, learning_rate, global_step.
        scalars: {tag: what is logged beside loss and accuracy}.
        finite: whether all variables are finite numbers.
        histograms: a summary of the weights.
    """

    def __init__(self, config, class_weights, cluster):
        self._config, self._cluster = config, cluster
        self._build_networks(class_weights)
        self.global_step = tf.train.get_or_create_global_step()
        self.learning_rate = tf.train.exponential_decay(
            float(config.lr), self.global_step, config.step_rate, float(config.decay), staircase=True
        )
        self.scalars = {"learning_rate": self.learning_rate}
        self._build_optimizer()
        floats = [variable for variable in tf.global_variables() if variable.dtype.is_floating]
        self.finite = tf.reduce_all([tf.reduce_all(tf.is_finite(variable)) for variable in floats])
        self.histograms = weight_histograms()

    def _build_networks(self, class_weights):
        config = self._config
        # The frozen part of a network is as in inference: batch norm by the moving statistics, which stay as they are.
        self.model = build(config, is4Train=config.train_layers == "all")
        check_batch_norms(tf.get_default_graph(), config)
        self.variables = tf.global_variables()
        self._learned = learned_variables(config)
        self.x = self.model.getInput()
        self.y_true = tf.placeholder(tf.float32, [None, config.total_class], name="y_true")
        with tf.name_scope("inference"):
            eval_model = build(config, is4Train=False, image=self.x)
            self.inference = classify(eval_model.getOutput(), self.y_true)[1:]
        self.cross_entropy, self.cost, self.accuracy = classify(self.model.getOutput(), self.y_true)
        if class_weights is not None:
            self.cost = tf.reduce_mean(self.cross_entropy * tf.reduce_sum(self.y_true * class_weights, 1))

    def _build_optimizer(self):
        config = self._config
        if config.weight_decay:
            kernels = [variable for variable in self._learned if variable.op.name.endswith("kernel")]
            weight_loss = config.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            self.cost += weight_loss
            self.scalars["weight_loss"] = weight_loss

        adam = tf.train.AdamOptimizer(learning_rate=self.learning_rate, epsilon=config.epsilon)
        gradients = adam.compute_gradients(self.cost, self._learned)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)  # of the moving statistics
        self._results = [self.cost, self.accuracy]
        if self._cluster.size > 1:
            gradients, updates = self._average(gradients, updates)
        with tf.control_dependencies([self.cost]):  # or the cost could be that of weights half updated
            update = adam.apply_gradients(gradients, self.global_step)
        self.optimizer = tf.group(update, *updates)

    def _average(self, gradients, updates):
        """The gradients and moving statistics as means over all members; and so what step() returns."""
        self._wishes = tf.placeholder(tf.float32, [2], name="wishes")
        with tf.control_dependencies(updates):
            moving = [variable for variable in self.variables if variable not in tf.trainable_variables()]
            moved = [tf.identity(variable) for variable in moving] if updates else []
        values = [gradient for gradient, _ in gradients]
        means = self._cluster.average(values + moved + self._results + [self._wishes])
        self._results = means[-3:]
        moves = [tf.assign(variable, mean) for variable, mean in zip(moving, means[len(values) :])] if moved else []
        return [(mean, variable) for mean, (_, variable) in zip(means, gradients)], moves

    def step(self, session, batch, wishes):
        """One update of the weights; loss, accuracy and other scalars are those before it.

        Args:
            wishes: two numbers that this member wishes to tell all.

        Returns:
            (loss, accuracy, {tag: other scalars}, the means of the wishes of all members).
        """
        feed = {self.x: batch.images, self.y_true: batch.labels}
        fetches = [self.optimizer, self.scalars, *self._results]
        if self._cluster.size > 1:
            feed[self._wishes] = wishes
            _, scalars, loss, accuracy, wishes = session.run(fetches, feed)
        else:
            _, scalars, loss, accuracy = session.run(fetches, feed)
        return float(loss), float(accuracy), {tag: float(value) for tag, value in scalars.items()}, wishes
