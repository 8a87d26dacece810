//! OCI image layouts and archives to verified squashfs layers.
