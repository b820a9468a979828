# TensorFlow 2.21 on the CPU. docs/setup.md says how to build and run it.
FROM python:3.13-slim-bookworm

RUN useradd --create-home --uid 1000 classifier
WORKDIR /classifier

# Before the program, so that a change of the program does not install them again.
COPY requirements.txt ./
COPY constraints/3.13.txt constraints/
RUN pip install --no-cache-dir -r requirements.txt -c constraints/3.13.txt

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
