# mis with its libraries, for Kubernetes and for clusters with Apptainer:
#   docker build --tag mis . ; apptainer build mis.sif docker-daemon://mis:latest
# Without CUDA: docker build --build-arg EXTRAS=k8s .
FROM python:3.11-slim
ARG EXTRAS=cuda,k8s
RUN apt-get update && apt-get install --yes --no-install-recommends git wget && rm -rf /var/lib/apt/lists/*
WORKDIR /mis
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY mis mis
RUN pip install --no-cache-dir --constraint requirements.lock --editable ".[${EXTRAS}]"
COPY params.yaml dvc.yaml ./
COPY pipelines pipelines
# KubeRay and Ray look for their files below a home folder that can be written.
RUN useradd --create-home --uid 1000 mis && chown -R mis /mis
USER mis
