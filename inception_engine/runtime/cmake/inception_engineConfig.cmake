# find_package(inception_engine) gives the targets inception_engine::inception_engine, the shared library, and
# inception_engine::static, which needs CXX among the languages of the project that links it.
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/inception_engineTargets.cmake)
