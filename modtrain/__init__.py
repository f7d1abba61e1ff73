"""modtrain trains a model module by module, asynchronously, over nothing but a shared folder."""
