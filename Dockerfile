# JupyterLab with the explorer, the course and the shipped records: Binder's environment, without torch and weights.
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home reader
WORKDIR /home/reader/companion
COPY --chown=reader . .
RUN pip install --no-cache-dir -r binder/requirements.txt
USER reader
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks/00_quickstart.ipynb"]
