# The base image brings torch and a torchvision that matches it; pip leaves both as they are.
# nnU-Net 2.8.1 excludes torch 2.9, so do not take a 2.9 image.
ARG BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime
FROM ${BASE}

RUN useradd --create-home --uid 1001 nnunet \
    && mkdir -p /data/nnUNet_raw /data/nnUNet_preprocessed /data/nnUNet_results \
    && chown -R nnunet:nnunet /data

COPY . /opt/nnunet_3dct
WORKDIR /opt/nnunet_3dct
RUN pip install --no-cache-dir . && chown -R nnunet:nnunet /opt/nnunet_3dct

USER nnunet
ENV nnUNet_raw=/data/nnUNet_raw \
    nnUNet_preprocessed=/data/nnUNet_preprocessed \
    nnUNet_results=/data/nnUNet_results
RUN nnUNet3DCT_check

CMD ["bash"]
