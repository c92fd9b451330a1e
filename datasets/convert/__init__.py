"""Annotations of other forms into those that the project reads: `python -m datasets.convert`.

Boxes become COCO files, one per split; labels of colours, of other ids or of polygons become PNGs
of class ids, with one list of images per split.
"""
