"""placeholder until merged"""
def census(root, files, cache):
    from lgffem_core.files import sha256_file
    return {f.relative_to(root).as_posix(): sha256_file(f) for f in files}
def data_digest(study, dataset):
    from lgffem_core.files import sha256_json, sha256_file
    r=study.data_root(dataset)
    return sha256_json({p.relative_to(r).as_posix(): sha256_file(p) for p in sorted(r.rglob("*")) if p.is_file()}) if r.exists() else ""
