# find_package(lbrcore): the targets lbrcore::lbrcore (shared) and lbrcore::static.
get_filename_component(_lbrcore_lib "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
find_path(_lbrcore_include lbrcore.h PATHS "${_lbrcore_lib}/../include" "${_lbrcore_lib}/../../include"
          NO_DEFAULT_PATH REQUIRED)
foreach(_kind IN ITEMS "lbrcore;SHARED;liblbrcore.so.1" "static;STATIC;liblbrcore.a")
  list(GET _kind 0 _name)
  list(GET _kind 1 _type)
  list(GET _kind 2 _file)
  if(NOT TARGET lbrcore::${_name})
    add_library(lbrcore::${_name} ${_type} IMPORTED)
    set_target_properties(lbrcore::${_name} PROPERTIES
      IMPORTED_LOCATION "${_lbrcore_lib}/${_file}"
      INTERFACE_INCLUDE_DIRECTORIES "${_lbrcore_include}")
  endif()
endforeach()
