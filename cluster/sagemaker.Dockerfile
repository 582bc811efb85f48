# The image of SageMaker's jobs and endpoints: the Ray nodes' image with another entry point.
#   docker build --build-arg IMAGE=REGISTRY/urbandet-ray:VERSION-cuda --tag NAME - < cluster/sagemaker.Dockerfile
# docs/how-to/sagemaker.md has the commands. The build needs no file of the context.
ARG IMAGE
FROM ${IMAGE}
# SageMaker mounts /opt/ml for root, and reads model/ and output/ from there
USER 0:0
RUN install -d /opt/ml
# an endpoint may be told another port by SAGEMAKER_BIND_TO_PORT
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true
# SageMaker adds the word `train` or `serve`; as a list, so that SIGTERM arrives
ENTRYPOINT ["python", "-m", "urbandet_ray.entrypoints.sagemaker_container"]
