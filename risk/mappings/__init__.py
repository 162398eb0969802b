"""What each event type means for risk: the shipped mappings and each tenant's own.

A mapping is data: ordered rules of one event type, the first whose conditions all hold says what
is raised, what is cleared and what becomes of sessions::

    model      the document and what makes one valid
    defaults   the shipped mappings, one per event type we know, in the same form
    service    read, save, compile once per version, dry run
    store      table `mappings`

`risk.mapping` compiles mappings and reads signals with them.
"""
