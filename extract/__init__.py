"""Clips to features: data sets, media, faces, encoders and the pipeline that fills a store."""
