"""python run.py summary: layers, parameters and multiplications."""

import pytest

from run import main
from src.settings import settings
from utils.commands.summary import layers


@pytest.mark.parametrize(
    "given, parameters, products",
    [  # LeCun 1998 by hand; Sandler 2018, 300 million multiply-adds
        ({"model_arch": "lenet5", "classes": 10}, 62006, 651720),
        ({"model_arch": "mobilenetv2", "classes": 1000}, 3504872, 300774272),
    ],
)
def test_summary_adds_up(given, parameters, products, capsys):
    found = layers(settings(**dict(given, classes=[str(number) for number in range(given["classes"])])))
    assert (sum(row[2] for row in found), sum(row[3] for row in found)) == (parameters, products)
    assert main(["summary", "--model_arch", given["model_arch"], "--total_class", str(given["classes"])]) == 0
    total = capsys.readouterr().out.splitlines()[-1].split()
    assert total == ["total", format(parameters, ","), format(products, ",")]


def test_summary_of_lenet_by_hand():
    assert layers(settings(model_arch="lenet5", classes=["a", "b"])) == [
        ("conv1", [28, 28, 6], 6 * 5 * 5 * 3 + 6, 28 * 28 * 6 * 5 * 5 * 3),
        ("conv2", [10, 10, 16], 16 * 5 * 5 * 6 + 16, 10 * 10 * 16 * 5 * 5 * 6),
        ("fc1", [120], 400 * 120 + 120, 400 * 120),
        ("fc2", [84], 120 * 84 + 84, 120 * 84),
        ("fc3", [2], 84 * 2 + 2, 84 * 2),
    ]
