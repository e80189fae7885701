"""Projects: every row that a user can name belongs to one, and every read is scoped to one."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from core import ids
from models.base import Base, Created


class Project(Created, Base):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True, default=ids.project)
    name: Mapped[str] = mapped_column(unique=True)


def ensure(session: Session, name: str) -> Project:
    """The project of this name, made if there is none."""
    found = session.scalar(select(Project).where(Project.name == name))
    if found is None:
        found = Project(name=name)
        session.add(found)
        session.flush()
    return found


def name_of(session: Session, project_id: str) -> str:
    return session.scalars(select(Project.name).where(Project.id == project_id)).one()
