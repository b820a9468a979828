# TensorFlow 1.14 on the CPU. docs/setup.md says how to build and run it.
FROM python:3.7-slim-bookworm

# OpenCV needs GLib.
RUN apt-get update && apt-get install -y --no-install-recommends libglib2.0-0 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 classifier
WORKDIR /classifier

# Before the program, so that a change of the program does not install them again; with a pip that chooses packages
# that Python 3.7 can run.
COPY requirements.txt ./
COPY constraints/3.7.txt constraints/
RUN pip install --no-cache-dir pip==21.3.1 && pip install --no-cache-dir -r requirements.txt -c constraints/3.7.txt

COPY run.py trainer.py dataset.py ./
COPY convert convert
COPY models models
COPY src src
COPY utils utils

# A new volume takes over the owner of the folder. With -u, that user's own folders are mounted instead.
RUN mkdir data checkpoints weights graphs && chown classifier data checkpoints weights graphs
VOLUME ["/classifier/data", "/classifier/checkpoints", "/classifier/weights", "/classifier/graphs"]
# Where any user may write its font cache.
ENV MPLCONFIGDIR=/tmp/matplotlib
USER classifier
ENTRYPOINT ["python", "run.py"]
