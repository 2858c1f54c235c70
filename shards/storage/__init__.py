"""Bytes on local disks and object stores."""
