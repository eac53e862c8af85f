"""Faces in video: RetinaFace detection, the track of one face, Dlib landmarks and crops."""
