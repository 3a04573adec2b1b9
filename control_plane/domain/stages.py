"""The life of a version. (Decisions on promotion follow below.)"""

from enum import StrEnum


class Stage(StrEnum):
    DEVELOPMENT = "Development"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"
