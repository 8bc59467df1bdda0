# The base image brings torch and a torchvision that matches it; pip leaves both as they are.
# nnU-Net 2.8.1 excludes torch 2.9, so do not take a 2.9 image.
ARG BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime
FROM ${BASE}

# nnU-Net compiles its network on CUDA (torch.compile): Triton and Inductor call a C and a C++ compiler at run time.
# Some 200 MB instead of the several GB of the devel image.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# Any user id will do (docker run -u): home, caches and data folders are writable for all, and USER is set since torch
# asks for the user's name, which an id without an entry in /etc/passwd does not have.
RUN useradd --create-home --uid 1001 nnunet \
    && mkdir -p /data/nnUNet_raw /data/nnUNet_preprocessed /data/nnUNet_results /home/nnunet/.cache \
    && chmod -R 1777 /data /home/nnunet
ENV HOME=/home/nnunet \
    USER=nnunet \
    nnUNet_raw=/data/nnUNet_raw \
    nnUNet_preprocessed=/data/nnUNet_preprocessed \
    nnUNet_results=/data/nnUNet_results

COPY . /opt/nnunet_3dct
WORKDIR /opt/nnunet_3dct
RUN pip install --no-cache-dir .

USER nnunet
RUN gcc --version && g++ --version && nnUNet3DCT_check

CMD ["bash"]
